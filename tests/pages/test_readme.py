"""Every Python block of README.md runs, section by section (tests/support/snippets.py says how)."""

import re

import pytest

from ..support import ROOT
from ..support.snippets import (
    STRICT,
    Block,
    lines_of,
    programs_running,
    read_blocks,
    start,
    with_free_ports,
)

pytestmark = pytest.mark.once


README = ROOT / "README.md"

# What the programs print, among other things.
TELLING = {
    "": ["Hello! 8"],
    "Quick Start": ["Connected: Welcome!", "Server says: Hello back!", "5 + 3 = 8"],
    "On Your Own Tornado Loop": ["5 + 3 = 8"],
}


def read_sections() -> dict[str, list[Block]]:
    """The Python blocks by second-level heading."""
    found: dict[str, list[Block]] = {}
    for block in read_blocks(README):
        if block.language == "python":
            found.setdefault(block.heading, []).append(block)
    return found


SECTIONS = read_sections()


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_code_of_a_section_runs(heading, tmp_path):
    blocks = with_free_ports(SECTIONS[heading])
    programs = {block.file: block.code for block in blocks if block.file}
    with programs_running(programs, tmp_path, *STRICT) as printed:
        for block in blocks:
            if not block.file:
                (tmp_path / "fragment.py").write_text(block.code, "utf-8")
                printed += lines_of(start(tmp_path / "fragment.py", *STRICT))
    missing = [line for line in TELLING[heading] if line not in printed]
    assert not missing, printed


def test_links_lead_to_files():
    for link in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", README.read_text("utf-8")):
        assert (README.parent / link).exists(), link


def test_the_subjects_of_the_original_readme_have_a_heading():
    pages = [README, *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    for heading in (
        "Quick Start",
        "Server Setup",
        "Client Setup",
        "Challenge-Response Authentication (CRA)",
        "Integration with Existing HTTP Servers",
        "Custom Protocol",
        "Error Handling",
        "Performance Optimization",
        "Broadcasting Messages",
        "Multi-Device Messaging",
        "License",
    ):
        assert heading in headings, heading
