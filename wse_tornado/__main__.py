"""``python -m wse_tornado``; see `wse_tornado.cli`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
