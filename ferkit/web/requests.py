"""What a request asks for: its picture, its settings, and whether it may ask at all."""

import hmac
import io
import math
from collections.abc import Collection, Mapping
from typing import IO
from urllib.parse import urlsplit

import flask
import numpy as np

from ferkit.errors import UserError
from ferkit.flags import yes_no
from ferkit.vision.pictures import TooManyPixels, decode_image
from ferkit.web.problems import Problem

MOST_BYTES = 16 * 2**20  # of a request
MOST_PIXELS = 50_000_000  # of a picture, before it is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
OPTIONS = {  # settings that a request may change
    "detection_confidence": float,
    "small_faces": bool,
    "smallest_face": int,
    "most_faces": int,
    "test_time_augmentation": bool,
}
_MULTIPART = "multipart/form-data"
_HOW = "send the file itself with 'Content-Type: image/jpeg' (or image/png, …), or as multipart/form-data"


class Request(flask.Request):
    """A request that keeps uploaded files in memory and never writes them to a disk."""

    def _get_file_stream(
        self, total_content_length: object, content_type: object, filename: object = None, content_length: object = None
    ) -> IO[bytes]:
        return io.BytesIO()


def check_host(request: flask.Request, trusted: Collection[str]) -> None:
    """Raises Problem (400) when the request names the server otherwise than it is known (DNS rebinding)."""
    try:
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        name = None
    if name not in trusted:
        raise Problem(400, "This server does not answer to the host's name in the request: see --trusted_host.")


def check_origin(request: flask.Request) -> None:
    """Raises Problem (403) when a page of another site sends the request."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    try:
        foreign = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower()
    except ValueError:  # no address at all
        foreign = True
    if foreign or (request.method not in ("GET", "HEAD") and site not in ("same-origin", "none")):
        raise Problem(403, "Pages of other sites may not use this server.")


def check_token(request: flask.Request, token: str | None) -> None:
    """Raises Problem (401) when the server wants a token and the request does not have it."""
    if token is None:
        return
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        detail = "This server wants its token: 'Authorization: Bearer TOKEN'."
        raise Problem(401, detail, {"WWW-Authenticate": "Bearer"})


def picture_of(request: flask.Request) -> tuple[str, np.ndarray]:
    """The name of the request's picture, empty if it has none, and the picture as a BGR image.

    Raises Problem: 400 without a picture or with several, 413 when it has too many bytes or pixels, 415 when the
    request has another type, 422 when the picture cannot be read.
    """
    name, content = _content_of(request)
    if not content:
        raise Problem(400, f"There is no picture in the request: {_HOW}.")
    try:
        return name, decode_image(content, FORMATS, MOST_PIXELS)
    except TooManyPixels as error:
        raise Problem(413, f"The picture cannot be read: {error}.") from error
    except UserError as error:
        raise Problem(422, f"The picture cannot be read: {error}.") from error


def _content_of(request: flask.Request) -> tuple[str, bytes]:
    kind = request.mimetype
    if kind == _MULTIPART:
        files = [file for _, file in request.files.items(multi=True)]
        if len(files) > 1:
            raise Problem(400, "There are several files in the request: send one picture at a time.")
        return (files[0].filename or "", files[0].read()) if files else ("", b"")
    if kind.startswith("image/") or kind in ("", "application/octet-stream"):
        return "", request.get_data(cache=False)
    raise Problem(415, f"'{kind}' is not the type of a picture: {_HOW}.")


def options_of(query: Mapping[str, str], *others: str) -> dict[str, float | bool]:
    """The settings that a request's query changes.

    others: further names that the query may have. Raises Problem (400) for an unknown name and for a value of another
    type.
    """
    known = (*others, *OPTIONS)
    for name in query:
        if name not in known:
            raise Problem(400, f"There is no parameter '{name}': this request takes {', '.join(known)}.")
    return {name: _parsed(name, text, OPTIONS[name]) for name, text in query.items() if name in OPTIONS}


def seconds_of(query: Mapping[str, str]) -> float | None:
    """The time stamp in a request's query, None if it has none."""
    return float(_parsed("seconds", query["seconds"], float)) if "seconds" in query else None


def _parsed(name: str, text: str, kind: type) -> float | bool:
    try:
        value = yes_no(text) if kind is bool else kind(text)
        if not math.isfinite(value):
            raise ValueError
        return value
    except Exception as error:  # argparse's or Python's
        wanted = {bool: "yes or no", int: "a whole number"}.get(kind, "a number")
        raise Problem(400, f"{name} is '{text}': it must be {wanted}.") from error
