"""Ctrl-C between any two bytecodes of the library, as a trace function raises it."""

import dis
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import wse_tornado

RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap}
PACKAGE = str(Path(wse_tornado.__file__).parent)


def interrupted_at(number: int, fn: Callable[[], Any]) -> tuple[bool, Any]:
    """Call ``fn`` and raise KeyboardInterrupt before opcode ``number`` that this thread runs in the
    library.

    Returns:
        Whether it was interrupted, and what ``fn`` returned where it was not.
    """
    left = number
    before = sys.gettrace()  # coverage's

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        # At a return no signal is looked for: CPython does that at calls, where functions begin,
        # and where loops jump back.
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] not in RETURNS:
            left -= 1
            if left == 0:
                sys.settrace(before)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        result = fn()
    except KeyboardInterrupt:
        return True, None
    finally:
        sys.settrace(before)
    return False, result
