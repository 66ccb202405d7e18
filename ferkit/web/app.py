"""The Flask application: the page, and the API that it uses.

app = create_app(Models(Recognizer()))
"""

import os
import threading
import time
from collections.abc import Collection
from typing import Any

import flask
import numpy as np
from werkzeug.exceptions import HTTPException

from ferkit.errors import UserError
from ferkit.flags import either
from ferkit.recognition import Recognizer, as_row
from ferkit.web import openapi, problems
from ferkit.web.gate import Gate
from ferkit.web.models import Models
from ferkit.web.problems import Problem
from ferkit.web.requests import (
    MOST_BYTES,
    Request,
    check_host,
    check_origin,
    check_token,
    options_of,
    picture_of,
    seconds_of,
)
from ferkit.web.sessions import Sessions

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def create_app(
    models: Models,
    token: str | None = None,
    trusted_hosts: Collection[str] = LOOPBACK_HOSTS,
    gate: Gate | None = None,
    sessions: Sessions | None = None,
) -> flask.Flask:
    """The application for one set of models.

    token: which requests to the API must have. trusted_hosts: names under which the server may be addressed, against
    DNS rebinding. gate, sessions: their limits.
    """
    app = flask.Flask(__name__)
    app.request_class = Request
    app.json.sort_keys = False  # type: ignore[attr-defined]  # expressions keep their order
    app.config.update(MAX_CONTENT_LENGTH=MOST_BYTES)
    app.url_map.merge_slashes = False  # no redirects
    gate = gate or Gate(running=os.cpu_count() or 1, waiting=16, per_client=8, patience=10.0)
    sessions = sessions or Sessions()

    @app.before_request
    def check() -> None:
        check_host(flask.request, trusted_hosts)
        check_origin(flask.request)
        if flask.request.path.startswith("/api/") and flask.request.endpoint not in ("health", "describe"):
            check_token(flask.request, token)

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(Problem)
    def of_problem(error: Problem) -> flask.Response:
        content = problems.body(error.status, error.detail)
        return flask.Response(content, error.status, error.headers, content_type=problems.TYPE)

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> flask.Response:
        details = {
            404: "There is nothing here: /api describes what there is.",
            413: f"The request has more than {MOST_BYTES // 2**20} MB.",
        }
        status = error.code or 500
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return of_problem(Problem(status, details.get(status, error.description or ""), headers))

    @app.errorhandler(Exception)
    def of_defect(error: Exception) -> flask.Response:
        app.logger.exception("a request failed")
        return of_problem(Problem(500, "The server made a mistake, which it has logged."))

    @app.get("/")
    def page() -> flask.Response:
        return app.send_static_file("index.html")

    @app.get("/api")
    def api_page() -> flask.Response:
        return app.send_static_file("api.html")

    @app.get("/favicon.ico")
    def icon() -> flask.Response:
        return app.send_static_file("icon.svg")

    @app.get("/api/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "token": token is not None}

    @app.get("/api/openapi.json")
    def describe() -> dict[str, Any]:
        return openapi.document(models.names, token is not None)

    @app.get("/api/models")
    def list_models() -> dict[str, Any]:
        rows = [
            {
                "name": name,
                "title": models.title(name),
                "default": name == models.default,
                "expressions": models.recognizer(name).expressions,
            }
            for name in models.names
        ]
        return {"models": rows}

    @app.post("/api/recognize")
    def recognize() -> dict[str, Any]:
        recognizer = recognizer_of(options_of(flask.request.args, "model"))
        with gate.entered(flask.request.remote_addr or ""):
            name, image = picture_of(flask.request)
            started = time.perf_counter()
            faces = recognizer.recognize(image)
            return answer(name, image, started, [as_row(face) for face in faces])

    @app.post("/api/sessions")
    def start() -> tuple[dict[str, Any], int]:
        changes = options_of(flask.request.args, "model")
        recognizer = recognizer_of({"small_faces": models.settings.small_faces_in_video, **changes})
        return {"session": sessions.start(recognizer), "expressions": recognizer.expressions}, 201

    @app.post("/api/sessions/<session>/frames")
    def track(session: str) -> dict[str, Any]:
        options_of({name: value for name, value in flask.request.args.items() if name != "seconds"})
        seconds, running = seconds_of(flask.request.args), sessions.get(session)
        with gate.entered(flask.request.remote_addr or ""):
            name, image = picture_of(flask.request)
            started = time.perf_counter()
            tracked = running.track(image, seconds)
            return answer(name, image, started, [{"face": number, **as_row(face)} for number, face in tracked])

    @app.delete("/api/sessions/<session>")
    def end(session: str) -> tuple[str, int]:
        sessions.end(session)
        return "", 204

    def recognizer_of(changes: dict[str, Any]) -> Recognizer:
        """The recognizer of the model that the query names, with changed settings."""
        name = flask.request.args.get("model", models.default)
        if name not in models.names:
            raise Problem(400, f"There is no model '{name}': choose {either(models.names)}.")
        return changed(models.recognizer(name), changes)

    return app


def changed(recognizer: Recognizer, changes: dict[str, Any]) -> Recognizer:
    """The recognizer with changed settings. Raises Problem (400) for a value outside its range."""
    try:
        return recognizer.with_settings(**changes) if changes else recognizer
    except UserError as error:
        raise Problem(400, f"{error}.") from error


def answer(name: str, image: np.ndarray, started: float, faces: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer to a picture: as of `predict.py --json`, and the size of the picture to which the boxes refer."""
    seconds = round(time.perf_counter() - started, 4)
    return {"image": name, "width": image.shape[1], "height": image.shape[0], "seconds": seconds, "faces": faces}


def warm_up(models: Models) -> threading.Thread:
    """Loads in the background all that is loaded on first use. Returns the thread that does it."""

    def work() -> None:
        for name in models.names:
            models.recognizer(name).warm_up()
        from ferkit.video import tracking  # noqa: F401 for the sessions

    thread = threading.Thread(target=work, name="warm-up", daemon=True)
    thread.start()
    return thread
