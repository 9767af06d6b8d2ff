"""What a WebSocket can run on: plain TCP or TLS, compressed or not."""

import functools
import ssl
from dataclasses import dataclass
from typing import Any

import trustme


@functools.cache
def authority() -> trustme.CA:
    """The tests' own."""
    return trustme.CA()


@functools.cache
def server_context() -> ssl.SSLContext:
    """For servers on localhost and 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    """For clients of those."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


@dataclass(frozen=True)
class On:
    """One of the four ways."""

    tls: bool
    deflate: bool

    def __str__(self) -> str:
        return ("tls" if self.tls else "tcp") + ("+deflate" if self.deflate else "")

    @property
    def scheme(self) -> str:
        return "wss" if self.tls else "ws"

    @property
    def served(self) -> dict[str, Any]:
        """Options for `serve`."""
        options: dict[str, Any] = {"compression": self.deflate}
        if self.tls:
            options["ssl_options"] = server_context()
        return options

    @property
    def client(self) -> dict[str, Any]:
        """Options for clients of ours."""
        options: dict[str, Any] = {"compression": self.deflate}
        if self.tls:
            options["ssl_options"] = client_context()
        return options

    @property
    def peer(self) -> dict[str, Any]:
        """Options for `RawPeer.connect`."""
        return {"deflate": self.deflate, "tls": client_context() if self.tls else None}

    @property
    def raw_server(self) -> dict[str, Any]:
        """Options for `RawServer`."""
        return {"deflate": self.deflate, "tls": server_context() if self.tls else None}


WAYS = [On(tls, deflate) for deflate in (False, True) for tls in (False, True)]
