"""Serves the application with waitress: limits on connections, on the size of requests and on their duration.

with listening("127.0.0.1", 5000) as listener:
    serve(app, listener)
"""

import ipaddress
import logging
import socket
import time

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from ferkit.errors import UserError
from ferkit.web import problems
from ferkit.web.requests import MOST_BYTES

_THREADS = 32  # more than may work and wait at the same time: see Gate
_CONNECTIONS = 200
_SILENCE = 30  # seconds without a byte after which a connection is closed
_SLOWEST = 60.0  # seconds in which a whole request has to arrive


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """The socket to listen on. port 0: any free one. Raises UserError when the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        cure = "choose another with --port" if host and is_loopback(host) else "check --host and --port"
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; {cure}") from error


def serve(app: Flask, listener: socket.socket, trusted_proxy: str | None = None) -> None:
    """Answers requests until Ctrl-C or SIGTERM.

    trusted_proxy: the address of a proxy that says in `X-Forwarded-For` who its clients are. Nobody else is believed.

    Waitress receives each request wholly before a thread works on it. So slow senders hold up nobody. Bodies stay in
    memory. Those that are somewhat too large are received as well, so that the client gets its answer.
    """
    server = create_server(
        app,
        sockets=[listener],
        threads=_THREADS,
        ident="",
        connection_limit=_CONNECTIONS,
        channel_timeout=_SILENCE,
        cleanup_interval=5,
        max_request_body_size=2 * MOST_BYTES,
        inbuf_overflow=2 * MOST_BYTES + 1,
        asyncore_use_poll=True,
        **({"trusted_proxy": trusted_proxy, "trusted_proxy_headers": {"x-forwarded-for"}} if trusted_proxy else {}),
    )
    server.channel_class = _Channel
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits for a thread is no news
    server.run()


class _ProblemTask(ErrorTask):
    """Answers a request that waitress refuses with problem details."""

    def execute(self) -> None:
        error = self.request.error
        content = problems.body(error.code, f"{error.body}.")
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", problems.TYPE))
        self.set_close_on_finish()
        self.content_length = len(content)
        self.write(content)


class _Channel(HTTPChannel):
    """A connection that is closed when a request takes too long to arrive, even if it never falls silent."""

    error_task_class = _ProblemTask
    _began = 0.0

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._began = time.monotonic()
        elif time.monotonic() - self._began > _SLOWEST:
            self.will_close = True
        return super().received(data)
