"""examples/notebook.ipynb runs from top to bottom, in a kernel of its own."""

import json
from importlib.util import find_spec

import pytest

from ..support import ROOT, require
from ..support.process import run_script

pytestmark = pytest.mark.once


NOTEBOOK = ROOT / "examples" / "notebook.ipynb"

# A process of its own: what Jupyter warns of, and its sockets, are not ours.
RUN = """
    import sys
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(sys.argv[1], as_version=4)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            print(output.get("text") or output["data"]["text/plain"])
"""


def test_every_cell_runs_and_tells():
    for package in ("nbclient", "ipykernel"):
        require(find_spec(package), package)
    done = run_script(RUN, str(NOTEBOOK), limit=50)
    assert done.returncode == 0, done.stderr
    for line in (
        "1.0",
        "[0, 1, 2, 3, 4]",
        "5",
        "'measure' failed at the other end: KeyError: 'angle'",
        "Message(type='done', payload=None)",
    ):
        assert line in done.stdout


def test_it_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
