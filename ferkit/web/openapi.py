"""The description of the API in the terms of OpenAPI 3.1."""

from collections.abc import Sequence
from typing import Any

from ferkit.web.problems import TYPE
from ferkit.web.requests import MOST_BYTES, MOST_PIXELS

_PROBLEMS = {
    400: "The request has no picture or several, or a parameter that does not exist or has a wrong value.",
    401: "The token is missing or wrong.",
    403: "A page of another site sent the request.",
    404: "There is no such session, or it has ended.",
    413: f"The request has more than {MOST_BYTES // 2**20} MB, or the picture more than {MOST_PIXELS:,} pixels.",
    415: "The type of the request is not that of a picture.",
    422: "The picture is damaged, cut short, or of an unknown format.",
    429: "Too many requests of one client at once.",
    503: "Too many requests of all clients are waiting.",
}
_PICTURE = {
    "required": True,
    "description": "A picture as JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF. It is turned upright by its EXIF data.",
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
        },
    },
}
_EXPRESSION = {"type": "string", "examples": ["Happy"]}
_FACE = {
    "type": "object",
    "required": ["box", "expression", "confidence", "probabilities"],
    "properties": {
        "box": {
            "type": "array",
            "description": "x, y, width and height in pixels; it may reach over the border of the picture",
            "items": {"type": "integer"},
            "minItems": 4,
            "maxItems": 4,
        },
        "expression": _EXPRESSION,
        "confidence": {"type": "number", "description": "probability of the expression, from 0 to 1"},
        "score": {"type": "number", "description": "how sure the detector is that this is a face, from 0 to 1"},
        "tilt": {"type": "number", "description": "degrees by which the face is turned clockwise"},
        "probabilities": {
            "type": "object",
            "description": "the probability of every expression",
            "additionalProperties": {"type": "number"},
        },
    },
}
_TRACKED = {
    "allOf": [
        {"$ref": "#/components/schemas/Face"},
        {
            "type": "object",
            "required": ["face"],
            "properties": {"face": {"type": "integer", "description": "the number that the face keeps"}},
        },
    ]
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong, and what to do about it"},
    },
}


def document(models: Sequence[str], token: bool) -> dict[str, Any]:
    """The description of the API for a server with these models. token: whether it wants one."""
    model = _parameter("model", {"type": "string", "enum": list(models), "default": models[0]}, "which model to use")
    options = [
        model,
        _parameter("detection_confidence", {"type": "number"}, "leave out faces with a lower score of the detector"),
        _parameter("small_faces", {"enum": ["yes", "no"]}, "also find small faces, which takes longer"),
        _parameter("smallest_face", {"type": "integer"}, "leave out faces that are narrower, in pixels"),
        _parameter("most_faces", {"type": "integer"}, "recognize only the largest faces, at most this many; 0: all"),
        _parameter("test_time_augmentation", {"enum": ["yes", "no"]}, "average over six views of each face; slower"),
    ]
    seconds = _parameter("seconds", {"type": "number"}, "time stamp of the frame; without it, the time of its arrival")
    session = {**_parameter("session", {"type": "string"}, "from the start of the session"), "in": "path"}
    session["required"] = True
    paths = {
        "/api/recognize": {
            "post": {
                "operationId": "recognize",
                "summary": "Recognize the expression of every face in a picture",
                "parameters": options,
                "requestBody": _PICTURE,
                "responses": _responses(200, "Its faces, from left to right", _answer("Face"), token, *_OF_A_PICTURE),
            }
        },
        "/api/sessions": {
            "post": {
                "operationId": "start_session",
                "summary": "Start a session for the frames of a camera or a video",
                "description": "In a session faces keep their numbers, and their probabilities are averaged over time. "
                "It ends after a minute without a frame.",
                "parameters": options,
                "responses": _responses(
                    201,
                    "The session",
                    _object(session={"type": "string"}, expressions={"type": "array", "items": _EXPRESSION}),
                    token,
                    400,
                    403,
                ),
            }
        },
        "/api/sessions/{session}/frames": {
            "post": {
                "operationId": "track",
                "summary": "Recognize the next frame of a session",
                "parameters": [session, seconds],
                "requestBody": _PICTURE,
                "responses": _responses(200, "Its faces", _answer("TrackedFace"), token, 404, *_OF_A_PICTURE),
            }
        },
        "/api/sessions/{session}": {
            "delete": {
                "operationId": "end_session",
                "summary": "End a session",
                "parameters": [session],
                "responses": _responses(204, "It has ended", None, token, 403),
            }
        },
        "/api/models": {
            "get": {
                "operationId": "list_models",
                "summary": "List the models",
                "responses": _responses(200, "The models", _MODELS, token),
            }
        },
        "/api/health": {
            "get": {
                "operationId": "health",
                "summary": "Ask whether the server works, and whether it wants a token",
                "responses": _responses(
                    200, "It works", _object(status={"const": "ok"}, token={"type": "boolean"}), token=False
                ),
                "security": [],
            }
        },
    }
    components: dict[str, Any] = {"schemas": {"Face": _FACE, "TrackedFace": _TRACKED, "Problem": _PROBLEM}}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Facial expression recognition",
            "version": "1",
            "description": "Send a picture, get the expression of every face in it. Nothing is stored.",
        },
        "paths": paths,
        "components": components,
        **({"security": [{"token": []}]} if token else {}),
    }


_OF_A_PICTURE = (400, 403, 413, 415, 422, 429, 503)
_MODELS = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "title", "default", "expressions"],
                "properties": {
                    "name": {"type": "string"},
                    "title": {"type": "string"},
                    "default": {"type": "boolean"},
                    "expressions": {"type": "array", "items": _EXPRESSION},
                },
            },
        }
    },
}


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _answer(face: str) -> dict[str, Any]:
    return _object(
        image={"type": "string", "description": "the name of the file, if the request gives one"},
        width={"type": "integer", "description": "of the picture to which the boxes refer, in pixels"},
        height={"type": "integer"},
        seconds={"type": "number", "description": "that the recognition took"},
        faces={"type": "array", "items": {"$ref": f"#/components/schemas/{face}"}},
    )


def _responses(
    status: int, description: str, schema: dict[str, Any] | None, token: bool, *problems: int
) -> dict[str, Any]:
    """The answers of an operation: the good one, and its problems."""
    good: dict[str, Any] = {"description": description}
    if schema is not None:
        good["content"] = {"application/json": {"schema": schema}}
    bad = {"schema": {"$ref": "#/components/schemas/Problem"}}
    statuses = sorted({*problems, *((401,) if token else ())})
    return {
        str(status): good,
        **{str(code): {"description": _PROBLEMS[code], "content": {TYPE: bad}} for code in statuses},
    }
