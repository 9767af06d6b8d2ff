"""Every Python block of README.md runs, section by section (tests/support/snippets.py says how).

All fragments of a section run in one namespace, after the Quick Start's server and client, which
the README says they go on from. ``print`` collects whole lines (it may be called from several
threads); nothing else is changed.
"""

import importlib.util
import re

import pytest

from wse_tornado import WseClient

from ..support import ROOT, require, wait_until
from ..support.snippets import STRICT, Block, programs_running, read_blocks, with_free_ports

pytestmark = pytest.mark.once


README = ROOT / "README.md"

# What the programs and the fragments print, among other things.
TELLING = {
    "Quick Start": [
        "Connected: Welcome!",
        "Server says: Hello back!",
        "5 + 3 = 8",
        "Announcement: Server is ready!",
        "note two",
    ],
    "On Your Own Tornado Loop": ["Connected: Welcome!", "5 + 3 = 8"],
    "Custom Protocol": [r"{'photo': b'\x89PNG'}"],
    "Error Handling": ["shop.sold-out tea", "True"],
    "Performance Optimization": ["42"],
    "Multi-Device Messaging": ["battery: 80"],
    "Reconnecting": ["now READY"],
}


def read_sections() -> dict[str, list[Block]]:
    """The Python blocks by second-level heading."""
    found: dict[str, list[Block]] = {}
    for block in read_blocks(README):
        if block.language == "python":
            found.setdefault(block.heading, []).append(block)
    return found


SECTIONS = read_sections()


def run_fragments(fragments: list[str], printed: list[str]) -> None:
    """Run them in this process, in one namespace with a running server and a connected client."""
    opening = SECTIONS["Quick Start"][0].code.replace("port=4200", "port=0")
    namespace: dict[str, object] = {
        "__name__": "readme",
        "print": lambda *words: printed.append(" ".join(map(str, words))),
    }
    exec(compile(opening.split("with server:")[0], README, "exec"), namespace)
    server = namespace["server"]
    with server, WseClient(server.url) as client:  # type: ignore[attr-defined]
        client.connect("your-secret-key", {"device": "laptop"})
        namespace["client"] = client
        namespace["WseClient"] = WseClient
        for fragment in fragments:
            exec(compile(fragment, README, "exec"), namespace)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_code_of_a_section_runs(heading, tmp_path):
    if any("wse_tornado.msgpack" in block.code for block in SECTIONS[heading]):
        require(importlib.util.find_spec("msgpack") is not None, "msgpack")
    blocks = with_free_ports(SECTIONS[heading])
    programs = {block.file: block.code for block in blocks if block.file}
    fragments = [block.code for block in blocks if not block.file]
    with programs_running(programs, tmp_path, *STRICT) as printed:
        pass
    if fragments:
        run_fragments(fragments, printed)
    for line in TELLING.get(heading, []):
        wait_until(lambda: line in printed, 5, f"{line!r} in {printed}")  # noqa: B023


def test_links_lead_to_files():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text("utf-8")):
        assert (README.parent / link).exists(), link
