"""The code on the page "Threads and waiting" runs."""

import re

import pytest

from tests.support.process import ROOT, run_script

PAGE = (ROOT / "docs" / "threads-and-waiting.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_blocks_run(number):
    done = run_script(BLOCKS[number])
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_there_are_code_blocks():
    assert len(BLOCKS) >= 5
