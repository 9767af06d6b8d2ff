"""The command line: ``serve``, ``call``, ``send``, ``listen`` and ``shell``.

Built on the public blocking classes and the standard library only; the playground's page is one of
Tornado's handlers. Results go to standard output, everything else to standard error, and the exit
code says how it ended.
"""

from .main import main

__all__ = ["main"]
