"""The pages of docs/: their code runs, and what they say of the library is so.

The Python blocks of a page are run as tests/support/snippets.py says. Files come first; then all
fragments of the page run as one program, in their order. A file named ``test_*.py`` is given to
pytest. What needs a package that is not installed is skipped, but not in CI.
"""

import ast
import dataclasses
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import wse_tornado
from wse_tornado import ErrorCode, Limits, Reason, testing

from ..support import ROOT, require, seconds
from ..support.process import environment, run_script
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
DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(DOCS)): page for page in sorted(DOCS.rglob("*.md"))}

# Pages whose code another test runs.
ELSEWHERE = ["testing.md", "threads-and-waiting.md"]

# What the code of a page prints, among other things.
TELLING: dict[str, list[str]] = {
    "how-to/celery.md": ["1", "2", "3"],
    "how-to/django.md": ["{'devices': 1}", "hi"],
    "how-to/flask.md": ["{'devices': 1}", "{'text': 'hi'}", "{'devices': 0}"],
    "how-to/notebooks.md": ["144"],
    "challenge-response.md": ["in: ['alice']", "Welcome!"],
    "custom-protocols.md": ["5 + 3 = 8", r"{'photo': b'\x89PNG'}"],
    "errors.md": ["shop.sold-out tea", "True"],
    "multi-device.md": ["phone: {'theme': 'dark'}", "battery: 80", "delivered"],
    "reconnecting.md": ["now READY"],
    "speed.md": ["42"],
    "how-to/tls.md": ["wss", "True", "['localhost']"],
    "how-to/tornado.md": ["ann"],
    "index.md": ["8"],
    "tutorial.md": [
        "Welcome, ann!",
        "Hello, ann! You said: is it me?",
        "5 + 3 = 8",
        "the server refused this identity",
        "the other end has no procedure named 'subtract'",
        "KeyError",
        "news bob is here",
        "{'carol': 'fine'}",
        "now READY",
    ],
}

# Warnings of other people's packages are not ours to judge.
OTHERS = {"celery", "django", "flask", "itsdangerous"}


def find(name: str) -> bool:
    """Whether a package or a program is here."""
    return bool(importlib.util.find_spec(name) or shutil.which(name))


def imported(blocks: list[Block]) -> set[str]:
    """The packages that a page's code imports."""
    names = set()
    for block in blocks:
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"wse_tornado", "tornado"}


def as_one_program(fragments: list[Block]) -> str:
    """All fragments, each on the lines of the page where it stands."""
    lines: list[str] = []
    for fragment in fragments:
        code = fragment.code.rstrip("\n").split("\n")
        lines += code[len(lines) :]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ELSEWHERE])
def test_the_code_of_a_page_runs(name: str, tmp_path: Path) -> None:
    blocks = with_free_ports(read_blocks(PAGES[name]))
    python = [block for block in blocks if block.language == "python"]
    if not python:
        return
    files = {block.file: block for block in python if block.file}
    packages = imported(python) - {file.removesuffix(".py") for file in files}
    for package in packages:
        require(find(package), package)
    options = () if packages & OTHERS else STRICT

    for block in blocks:
        if block.language == "sh" and block.code.lstrip().startswith("openssl"):
            require(find("openssl"), "openssl")
            subprocess.run(
                ["sh", "-e", "-c", block.code], cwd=tmp_path, check=True, capture_output=True
            )
    programs = {}
    for file, block in files.items():
        if block.is_module or file.startswith("test_"):
            (tmp_path / file).write_text(block.code, "utf-8")
        else:
            programs[file] = block.code
    with programs_running(programs, tmp_path, *options) as printed:
        fragments = [block for block in python if not block.file]
        if fragments:
            (tmp_path / f"{PAGES[name].stem}_page.py").write_text(as_one_program(fragments))
            printed += lines_of(start(tmp_path / f"{PAGES[name].stem}_page.py", *options))
        for file in files:
            if file.startswith("test_"):
                run_pytest(tmp_path / file)
    missing = [line for line in TELLING.get(name, []) if line not in printed]
    assert not missing, printed


INTRUDER = """
from wse_tornado import NotAuthorized, WseClient

with server:
    for guess in {guesses!r}:
        with WseClient(server.url) as intruder:
            try:
                intruder.connect(guess)
            except NotAuthorized:
                print("refused:", guess)
            else:
                print("let in:", guess)
"""


@pytest.mark.parametrize(("name", "service"), [("celery", "celery"), ("flask", "web")])
def test_nobody_gets_in_as_the_service_without_its_key(
    name: str, service: str, tmp_path: Path
) -> None:
    require(find(name), name)
    guesses = [service, "ann", "", None, [service], {"key": service}, service + "'s key"]
    blocks = with_free_ports(read_blocks(DOCS / "how-to" / f"{name}.md"))
    python = [block for block in blocks if block.language == "python"]
    for block in python:
        if block.file:
            (tmp_path / block.file).write_text(block.code, "utf-8")
    page = as_one_program([block for block in python if not block.file])
    (tmp_path / "page.py").write_text(page + INTRUDER.format(guesses=guesses), "utf-8")
    printed = lines_of(start(tmp_path / "page.py"))
    assert [line for line in printed if line.startswith("let in:")] == []
    assert [line for line in printed if line.startswith("refused:")] == [
        f"refused: {guess}" for guess in guesses
    ]


def run_pytest(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        capture_output=True,
        text=True,
        timeout=seconds(60),
        env=environment(file.parent),
        cwd=file.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr


THREADS = [
    block.code
    for block in read_blocks(PAGES["threads-and-waiting.md"])
    if block.language == "python"
]


@pytest.mark.parametrize("number", range(len(THREADS)))
def test_the_code_about_threads_runs_block_by_block(number: int) -> None:
    done = run_script(THREADS[number])
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


# -- what is not Python


def short(value: object) -> str:
    return value if isinstance(value, str) and len(value) < 40 else ""


def blocks_of(language: str) -> list[tuple[str, Block]]:
    return [
        (name, block)
        for name, page in PAGES.items()
        for block in read_blocks(page)
        if block.language == language
    ]


@pytest.mark.parametrize(("name", "block"), blocks_of("nginx"), ids=short)
def test_nginx_takes_its_configuration(name: str, block: Block, tmp_path: Path) -> None:
    require(shutil.which("nginx"), "nginx")
    conf = tmp_path / "nginx.conf"
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"listen 127.0.0.1:{free.getsockname()[1]};"  # nginx takes no port 0
    code = re.sub(r"listen \d+ ssl;", listen, block.code)
    code = re.sub(r"^ *ssl_certificate.*;$", "", code, flags=re.MULTILINE)
    conf.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{code}\n}}\n", "utf-8")
    done = subprocess.run(
        ["nginx", "-t", "-q", "-c", str(conf), "-p", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "block"), blocks_of("ini"), ids=short)
def test_systemd_takes_its_unit(name: str, block: Block, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "chat.service"
    # It looks for the program and the documentation, which are not here.
    code = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", block.code, flags=re.MULTILINE)
    unit.write_text(code, "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


SCRIPT = re.compile(r"<script type=\"module\">\n(.*?)</script>", re.DOTALL)


def scripts() -> list[tuple[str, str]]:
    found = [(name, block.code) for name, block in blocks_of("js")]
    for name, block in blocks_of("html"):
        found += [(name, script) for script in SCRIPT.findall(block.code)]
    return found


@pytest.mark.parametrize(("name", "script"), scripts(), ids=short)
def test_node_takes_the_javascript(name: str, script: str, tmp_path: Path) -> None:
    require(shutil.which("node"), "node")
    (tmp_path / "script.mjs").write_text(script, "utf-8")
    done = subprocess.run(
        ["node", "--check", str(tmp_path / "script.mjs")], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"


# -- what the pages say


def table(page: str) -> list[list[str]]:
    """The cells of all rows of a page's tables, without heads."""
    rows = []
    lines = (DOCS / page).read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        head = number + 1 < len(lines) and lines[number + 1].startswith("| ---")
        if line.startswith("| ") and not head and not line.startswith("| ---"):
            rows.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return rows


def test_the_table_of_limits_is_that_of_the_code() -> None:
    said = [(row[0], float(row[1])) for row in table("limits.md")]
    true = [(f"`{f.name}`", float(f.default)) for f in dataclasses.fields(Limits)]
    assert said == true


def test_the_table_of_limits_names_codes_and_reasons_that_exist() -> None:
    known = {member.value for kind in (Reason, ErrorCode) for member in kind}
    for row in table("limits.md"):
        assert len(row) == 5, row
        for name in re.findall(r"`(wse\.[\w.-]+)`", " ".join(row)):
            assert name in known
        assert row[4] == "-" or re.search(r"\b1\d{3} `|close frame", row[4]), row


def test_every_reason_and_every_shared_code_stands_on_the_page_of_the_wire() -> None:
    text = (DOCS / "wire.md").read_text("utf-8")
    for reason in set(Reason) - {Reason.NO_REASON}:
        assert f"`{reason.value}`" in text
    for name, code in re.findall(r"^    (wse\.[\w.-]+) +(\w+)$", text, re.MULTILINE):
        assert name == code_of(code)
    shared = text[text.index("## 7.") : text.index("## 8.")]
    assert len(re.findall(r"^    wse\.", shared, re.MULTILINE)) == 16


def code_of(name: str) -> str:
    return ErrorCode[name].value


def test_the_page_of_the_wire_has_the_sections_that_docstrings_cite() -> None:
    text = (DOCS / "wire.md").read_text("utf-8")
    sections = set(re.findall(r"^## (\d+)\.", text, re.MULTILINE))
    cited = set()
    for module in Path(wse_tornado.__file__).parent.rglob("*.py"):
        cited |= set(re.findall(r"(?:WIRE|wire)\.md(?: section)? (\d+)", module.read_text("utf-8")))
    assert cited
    assert cited <= sections


def test_every_public_name_stands_in_the_api_reference() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    documented = set(re.findall(r":: wse_tornado\.(\w+)", text))
    aliases = {"WSE_ERROR", "WSE_REASON", "WSE_STATUS"}
    assert set(wse_tornado.__all__) - {"__version__"} - aliases <= documented
    for alias in aliases:
        assert alias in text
    documented = set(re.findall(r":: wse_tornado\.testing\.(\w+)", text))
    assert set(testing.__all__) == documented


def test_links_lead_to_files() -> None:
    for page in PAGES.values():
        for link in re.findall(r"\]\((?!\w+:)([^)#]+)[^)]*\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page}: {link}"


# -- the build


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser"):
        require(find(package), package)
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*sphinx, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=seconds(55),
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path / "html") for page in (tmp_path / "html").rglob("*.html")}
    assert {Path(name).with_suffix(".html") for name in PAGES} <= pages
    index = (tmp_path / "html" / "api.html").read_text("utf-8")
    assert "Connect, get in, and return" in index
