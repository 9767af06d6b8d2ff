"""Certificates made at run time, and sockets that report TLS's waiting as TCP's."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

FOLDER = "BENCHMARKS_TLS"  # environment: where the certificates of this run are


def make_certificates(folder: Path) -> None:
    """An authority and a server certificate, for this process and those that it starts."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    os.environ[FOLDER] = str(folder)


def server_context() -> ssl.SSLContext:
    """For servers under test."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(Path(os.environ[FOLDER]) / "server.pem")
    return context


def client_context() -> ssl.SSLContext:
    """For clients under test: they verify, as they would anywhere."""
    return ssl.create_default_context(cafile=str(Path(os.environ[FOLDER]) / "ca.pem"))


class LoadSocket(ssl.SSLSocket):
    """A TLS socket for epoll loops: where it has to wait, `BlockingIOError` is raised.

    A read takes one record. OpenSSL reads no further than that (read-ahead is off), so epoll
    reports whatever is left.
    """

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        try:
            return self._sslobj.read(len(buffer), buffer)  # type: ignore[attr-defined,no-any-return]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return 0

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return self._sslobj.write(data)  # type: ignore[attr-defined,no-any-return]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None


def of_load(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make its sockets `LoadSocket`."""
    context.sslsocket_class = LoadSocket
    return context
