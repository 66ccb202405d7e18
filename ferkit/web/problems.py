"""Errors of the API as problem details (RFC 9457)."""

import json
from collections.abc import Mapping
from http import HTTPStatus

TYPE = "application/problem+json"


class Problem(Exception):
    """An error that the client is told. detail: one sentence or two that name the problem and the cure."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def busy(status: int, detail: str) -> Problem:
    """A problem that is over soon: the client may try again after a second."""
    return Problem(status, detail, {"Retry-After": "1"})


def body(status: int, detail: str) -> bytes:
    """The JSON of a problem."""
    title = HTTPStatus(status).phrase
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode() + b"\n"
