"""The pytest plugin of wse_tornado: the fixtures `wse_server`, `wse_connect` and `wse_recorder`.

pytest imports its plugins before anything else, coverage measurement included. So this module
stands outside of the package, which it imports only when a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wse_tornado.testing import Connector, Recorder, Served

__all__ = ["wse_connect", "wse_recorder", "wse_server"]


@pytest.fixture
def wse_server() -> Iterator[Served]:
    """A `wse_tornado.testing.Served`: a server on a free port that lets everybody in.

    Override it to test a server of your own: ``with serving(my_server) as served: yield served``.
    """
    from wse_tornado.testing import serving

    with serving() as served:
        yield served


@pytest.fixture
def wse_connect(wse_server: Served) -> Iterator[Connector]:
    """``wse_connect(identity, meta, ...)`` is a client connected to ``wse_server``, closed at the
    end of the test; see `wse_tornado.testing.Connector`."""
    from wse_tornado.testing import Connector

    with Connector(wse_server) as connector:
        yield connector
        wse_server.resume()  # a server that hangs would not answer the clients' goodbyes


@pytest.fixture
def wse_recorder() -> Recorder:
    """An empty `wse_tornado.testing.Recorder`."""
    from wse_tornado.testing import Recorder

    return Recorder()
