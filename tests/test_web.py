"""The HTTP API: what it answers, what it refuses, and what it stands."""

import http.client
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator

import flask
import numpy as np
import pytest
from conftest import JPEG, ROOT, Server, load_script
from openapi_spec_validator import validate
from PIL import Image

from ferkit.constants import DEFAULT_MODEL, MIXTURES, SHIPPED_MODELS
from ferkit.errors import UserError
from ferkit.recognition import Recognizer
from ferkit.video.tracking import Tracker
from ferkit.vision.pictures import read_image
from ferkit.web import server as web_server
from ferkit.web.app import create_app
from ferkit.web.gate import Gate
from ferkit.web.models import _TITLES, TRAINED, Models
from ferkit.web.problems import Problem
from ferkit.web.requests import MOST_BYTES
from ferkit.web.server import is_loopback, listening
from ferkit.web.sessions import Sessions

PORTRAIT = ROOT / "docs" / "portrait.jpg"
PICTURE = PORTRAIT.read_bytes()
TOKEN = "a-token-for-the-tests"


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(Recognizer("ferplus"))


@pytest.fixture(scope="module")
def client(models):
    return create_app(models).test_client()


def recognize(client, content: bytes = PICTURE, query: str = "", **headers: str):
    return client.post(f"/api/recognize{query}", data=content, headers={**JPEG, **headers})


def assert_problem(response, status: int, *fragments: str) -> None:
    """Problem details with this status, whose text has the fragments."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem = json.loads(response.data)
    assert problem["status"] == status and problem["type"] == "about:blank" and problem["title"]
    for fragment in fragments:
        assert fragment in problem["detail"]


# --- what it answers -------------------------------------------------------------------------------------------------


def test_answer_is_what_the_library_finds(client):
    (face,) = Recognizer("ferplus").recognize(read_image(PORTRAIT))
    for response in (
        recognize(client),
        client.post("/api/recognize", data={"image": (io.BytesIO(PICTURE), "portrait.jpg")}),
    ):
        answer = response.json
        assert response.status_code == 200 and (answer["width"], answer["height"]) == Image.open(PORTRAIT).size
        (row,) = answer["faces"]
        assert row["box"] == list(face.box) and row["expression"] == face.expression
        assert row["probabilities"] == pytest.approx(face.probabilities)
        assert list(row["probabilities"]) == list(face.probabilities), "in the model's order"
    assert answer["image"] == "portrait.jpg"


def test_answer_is_that_of_the_command(client, capsys):
    import predict

    assert predict.main(["--image", str(PORTRAIT), "--model_path=ferplus", "--json"]) == 0
    (face,) = json.loads(capsys.readouterr().out)["faces"]
    assert recognize(client).json["faces"] == [face]


def test_query_chooses_model_and_settings(client, models):
    image = read_image(PORTRAIT)
    (face,) = recognize(client, query="?model=fer2013&test_time_augmentation=yes").json["faces"]
    (expected,) = models.recognizer("fer2013").with_settings(test_time_augmentation=True).recognize(image)
    (other,) = models.recognizer("fer2013").recognize(image)
    assert face["confidence"] == pytest.approx(expected.confidence) and face["confidence"] != other.confidence
    assert recognize(client, query="?smallest_face=400").json["faces"] == []
    (only,) = recognize(client, query="?most_faces=1").json["faces"]
    assert only["expression"] == "Happy"


def test_picture_is_turned_upright_and_may_be_grey(client):
    expected = recognize(client).json["faces"][0]
    picture, exif, file = Image.open(PORTRAIT).convert("L").rotate(90, expand=True), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture.save(file, "JPEG", exif=exif, quality=95)
    answer = recognize(client, file.getvalue()).json
    assert (answer["width"], answer["height"]) == Image.open(PORTRAIT).size
    assert answer["faces"][0]["box"] == pytest.approx(expected["box"], abs=6)
    assert answer["faces"][0]["expression"] == "Happy"


def test_picture_without_a_face_is_no_error(client):
    file = io.BytesIO()
    Image.new("RGB", (200, 100), "green").save(file, "PNG")
    response = recognize(client, file.getvalue())
    assert response.status_code == 200 and response.json["faces"] == []


def test_models_are_listed_and_a_trained_one_comes_first(client, tmp_path):
    assert [(row["name"], row["default"]) for row in client.get("/api/models").json["models"]] == [
        ("ferplus", True),
        (DEFAULT_MODEL, False),
        ("fer2013", False),
        ("fer2013_large", False),
    ]
    assert create_app(Models(Recognizer(DEFAULT_MODEL))).test_client().get("/api/models").json["models"][0]["default"]
    path = tmp_path / "saved_model.bin"
    path.write_bytes((ROOT / "pretrained" / "saved_model.bin").read_bytes())
    rows = create_app(Models(Recognizer(path))).test_client().get("/api/models").json["models"]
    included = [(name, False) for name in (DEFAULT_MODEL, "ferplus", "fer2013", "fer2013_large")]
    assert not any(row["title"].startswith("Your own") for row in rows[1:])
    assert {*_TITLES} == {*SHIPPED_MODELS, *MIXTURES}
    assert [(row["name"], row["default"]) for row in rows] == [(TRAINED, True), *included]
    assert str(tmp_path) not in json.dumps(rows)


# --- sessions --------------------------------------------------------------------------------------------------------


def test_faces_keep_their_numbers_and_are_smoothed(client, models):
    session = client.post("/api/sessions").json["session"]
    image, tracker = read_image(PORTRAIT), Tracker(0.5, 0.5)
    brighter = np.clip(image.astype(int) * 2, 0, 255).astype(np.uint8)
    from ferkit.video.source import Frame

    for number, frame in enumerate((image, brighter, image)):
        file = io.BytesIO()
        Image.fromarray(frame[..., ::-1]).save(file, "PNG")
        url = f"/api/sessions/{session}/frames?seconds={number / 10}"
        (row,) = client.post(url, data=file.getvalue(), headers=JPEG).json["faces"]
        recognizer = models.recognizer("ferplus").with_settings(small_faces=False)
        ((identity, face),) = tracker.update(Frame(number, number / 10, frame, 0.0), recognizer.recognize(frame))
        assert row["face"] == identity == 1 and row["probabilities"] == pytest.approx(face.probabilities, abs=1e-6)
    (row,) = client.post(f"/api/sessions/{session}/frames?seconds=0", data=PICTURE, headers=JPEG).json["faces"]
    assert row["face"] == 2, "time went back: a new scene, in which no number comes again"
    assert client.delete(f"/api/sessions/{session}").status_code == 204
    assert_problem(client.post(f"/api/sessions/{session}/frames", data=PICTURE, headers=JPEG), 404, "start a new one")


def test_sessions_are_limited_in_number_and_age(models):
    sessions = Sessions(most=3, idle=0.2)
    names = [sessions.start(models.recognizer("ferplus")) for _ in range(3)]
    sessions.get(names[0]).used += 0.01  # the second is now the one that was used least recently
    sessions.start(models.recognizer("ferplus"))
    assert len(sessions) == 3
    sessions.get(names[0])
    with pytest.raises(Problem):
        sessions.get(names[1])
    time.sleep(0.3)
    with pytest.raises(Problem):
        sessions.get(names[0])
    assert len(sessions) == 0


def test_session_takes_one_frame_at_a_time(models):
    session = Sessions()
    running = session.get(session.start(models.recognizer("ferplus")))
    with running._lock, pytest.raises(Problem) as caught:
        running.track(read_image(PORTRAIT), None)
    assert caught.value.status == 429 and caught.value.headers["Retry-After"]
    assert len(running.track(read_image(PORTRAIT), None)) == 1


# --- what it refuses -------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 1000) + b"IDAT" + zlib.compress(bytes(10**6))


@pytest.mark.parametrize(
    ("status", "content", "headers", "query", "fragment"),
    [
        (400, b"", JPEG, "", "no picture"),
        (400, b"--x\r\nnonsense", {"Content-Type": "multipart/form-data; boundary=x"}, "", "no picture"),
        (400, b"nonsense", {"Content-Type": "multipart/form-data"}, "", "no picture"),
        (400, PICTURE, JPEG, "?url=http://localhost/", "no parameter 'url'"),
        (400, PICTURE, JPEG, "?model=/etc/passwd", "no model '/etc/passwd'"),
        (400, PICTURE, JPEG, "?detection_confidence=nan", "must be a number"),
        (400, PICTURE, JPEG, "?detection_confidence=7", "between 0 and 1"),
        (400, PICTURE, JPEG, "?small_faces=maybe", "yes or no"),
        (400, PICTURE, JPEG, "?most_faces=1.5", "a whole number"),
        (413, bytes(MOST_BYTES + 1), JPEG, "", "16 MB"),
        (413, png(100_000, 100_000), JPEG, "", "pixels"),
        (413, png(8_000, 8_000), JPEG, "", "pixels"),
        (415, PICTURE, {"Content-Type": "application/x-www-form-urlencoded"}, "", "image/jpeg"),
        (415, b"{}", {"Content-Type": "application/json"}, "", "image/jpeg"),
        (422, PICTURE[:3000], JPEG, "", "cut short"),
        (422, b"GIF89a", JPEG, "", "none of"),
        (422, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", JPEG, "", "none of"),
        (422, b"https://example.org/photo.jpg", JPEG, "", "none of"),
    ],
)
def test_refusals(client, status, content, headers, query, fragment):
    started = time.monotonic()
    assert_problem(client.post(f"/api/recognize{query}", data=content, headers=headers), status, fragment)
    assert time.monotonic() - started < 5


def test_refuses_several_pictures_unknown_addresses_and_methods(client):
    files = {"one": (io.BytesIO(PICTURE), "1.jpg"), "two": (io.BytesIO(PICTURE), "2.jpg")}
    assert_problem(client.post("/api/recognize", data=files), 400, "one picture")
    assert_problem(client.get("/api/nothing"), 404)
    response = client.get("/api/recognize")
    assert_problem(response, 405)
    assert "POST" in response.headers["Allow"]
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%5capp.py"):
        assert client.get(path).status_code == 404


def test_a_defect_is_told_without_its_details(models, monkeypatch, caplog):
    app = create_app(models)
    monkeypatch.setattr(Recognizer, "recognize", lambda self, image: 1 / 0)
    response = recognize(app.test_client())
    assert_problem(response, 500)
    assert "ZeroDivision" not in response.text and "ZeroDivision" in caplog.text


def test_hosts_and_origins_are_checked(client):
    for host in ("localhost:5000", "127.0.0.1:5000", "[::1]:5000"):
        assert client.get("/", headers={"Host": host}).status_code == 200
        assert recognize(client, Host=host, Origin=f"http://{host}").status_code == 200
    for path in ("/", "/api/models", "/static/style.css"):
        assert_problem(client.get(path, headers={"Host": "evil.example:5000"}), 400, "--trusted_host")
    for origin in ("http://[", "http://evil.example", "null", "http://localhost:5001", "http://localhost.evil.example"):
        response = recognize(client, Host="localhost:5000", Origin=origin)
        assert_problem(response, 403)
        assert "Access-Control-Allow-Origin" not in response.headers
    assert_problem(recognize(client, **{"Sec-Fetch-Site": "cross-site"}), 403)
    assert "Access-Control-Allow-Origin" not in client.options("/api/recognize").headers


def test_token_is_wanted_by_the_api_alone(models):
    client = create_app(models, TOKEN).test_client()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"X-Token": TOKEN}):
        for response in (recognize(client, **headers), client.post("/api/sessions", headers=headers)):
            assert_problem(response, 401, "Bearer TOKEN")
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/api/models", headers=headers).status_code == 401
        assert client.get("/api/nothing", headers=headers).status_code == 401
    assert recognize(client, Authorization=f"Bearer {TOKEN}").status_code == 200
    assert client.get("/").status_code == client.get("/api/health").status_code == 200
    assert client.get("/api/health").json == {"status": "ok", "token": True}


def test_every_answer_has_the_headers_that_protect(client):
    for response in (client.get("/"), client.get("/static/style.css"), recognize(client), client.get("/nothing")):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-store"
        assert "Server" not in response.headers and "Set-Cookie" not in response.headers


# --- too much at once ------------------------------------------------------------------------------------------------


def test_gate_refuses_what_is_too_much():
    gate = Gate(running=1, waiting=1, per_client=1, patience=0.05)
    with gate.entered("a"):
        with pytest.raises(Problem) as caught, gate.entered("a"):
            pass
        assert caught.value.status == 429
        with pytest.raises(Problem) as caught, gate.entered("b"):
            pass
        assert caught.value.status == 503 and "waited" in str(caught.value)
        entered = threading.Event()
        patient = Gate.entered
        gate.patience = 5
        thread = threading.Thread(target=lambda: _enter(patient(gate, "b"), entered))
        thread.start()
        while gate._inside["b"] == 0:
            time.sleep(0.01)
        with pytest.raises(Problem) as caught, gate.entered("c"):
            pass
        assert caught.value.status == 503 and not entered.is_set()
    thread.join(5)
    assert entered.is_set() and not gate._inside
    with gate.entered("a"):
        pass


def _enter(turn, entered: threading.Event) -> None:
    with turn:
        entered.set()


def test_problem_of_a_full_gate_says_when_to_try_again(models):
    full = Gate(running=1, waiting=0, per_client=0, patience=0)
    response = recognize(create_app(models, gate=full).test_client())
    assert_problem(response, 429)
    assert response.headers["Retry-After"] == "1"


# --- its description -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, TOKEN])
def test_description_is_valid_and_names_every_operation(models, token):
    app = create_app(models, token)
    document = app.test_client().get("/api/openapi.json").json
    validate(document)
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    there = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/") and rule.rule != "/api/openapi.json"
    }
    assert described == there
    assert ("401" in document["paths"]["/api/recognize"]["post"]["responses"]) == (token is not None)
    names = {item["name"] for item in document["paths"]["/api/recognize"]["post"]["parameters"]}
    query = "&".join(f"{name}=x" for name in names)
    assert "no parameter" not in recognize(app.test_client(), query=f"?{query}").text


def test_answers_are_as_described(client):
    document = client.get("/api/openapi.json").json
    answer = document["paths"]["/api/recognize"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    got = recognize(client).json
    assert set(answer["properties"]) == set(got)
    assert set(document["components"]["schemas"]["Face"]["properties"]) == set(got["faces"][0])


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    assert server.stop() == (0, "")


def test_server_recognizes(server):
    status, answer = server.post(PICTURE)
    assert status == 200 and answer["faces"][0]["expression"] == "Happy"


def test_server_refuses_in_problem_details(server):
    assert server.post(bytes(MOST_BYTES + 1))[0] == 413
    for text in (b"nonsense\r\n\r\n", b"POST /api/recognize HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"):
        with socket.create_connection((server.host.split(":")[0], int(server.host.split(":")[1])), 30) as connection:
            connection.sendall(text)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head and b"waitress" not in answer
        assert json.loads(body)["status"] in (400, 413)


def test_slow_senders_hold_up_nobody(server):
    host, port = server.host.split(":")
    slow = [socket.create_connection((host, int(port)), 30) for _ in range(60)]  # more than there are threads
    for connection in slow:
        connection.sendall(b"POST /api/recognize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
    started = time.monotonic()
    assert server.post(PICTURE)[0] == 200 and time.monotonic() - started < 20
    for connection in slow:
        connection.close()


def test_request_that_arrives_too_slowly_is_cut_off(models, monkeypatch):
    monkeypatch.setattr(web_server, "_SLOWEST", 1.0)
    listener = listening("127.0.0.1", 0)
    threading.Thread(target=web_server.serve, args=(create_app(models), listener), daemon=True).start()
    started = time.monotonic()
    with socket.create_connection(listener.getsockname(), 30) as connection:
        connection.sendall(b"POST /api/recognize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        with pytest.raises(OSError):
            while time.monotonic() < started + 30:
                connection.sendall(b"x")
                time.sleep(0.1)
    assert time.monotonic() > started + 1


@pytest.mark.parametrize(
    ("trusted", "client"), [(None, "127.0.0.1"), ("127.0.0.1", "10.1.2.3"), ("10.0.0.1", "127.0.0.1")]
)
def test_only_the_trusted_proxy_says_who_its_clients_are(trusted, client):
    app = flask.Flask("addresses")
    app.add_url_rule("/", view_func=lambda: flask.request.remote_addr)
    listener = listening("127.0.0.1", 0)
    threading.Thread(target=web_server.serve, args=(app, listener, trusted), daemon=True).start()
    connection = http.client.HTTPConnection(*listener.getsockname(), timeout=10)
    connection.request("GET", "/", headers={"X-Forwarded-For": "1.1.1.1, 10.1.2.3"})
    assert connection.getresponse().read().decode() == client


@pytest.mark.slow
def test_server_stands_fifty_clients(server):
    statuses: Counter[int] = Counter()
    until = time.monotonic() + 30

    def work() -> None:
        while time.monotonic() < until:
            status = server.post(PICTURE)[0]
            statuses[status] += 1
            if status != 200:
                time.sleep(0.05)

    server.post(PICTURE)
    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(10)
    early = server.memory()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429, 503} and statuses[200] >= 10, statuses
    assert server.memory() < early + 100, "memory stays flat"
    assert server.post(PICTURE)[0] == 200


def test_server_tells_why_it_cannot_start(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = load_script("serve.py").main
    with listening("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
        for flag, fragments in (
            (f"--port={port}", (port, "--port")),
            ("--host=0.0.0.0", ("--token",)),
            ("--token=short", ("16 characters",)),
            ("--detector=yunet", ("--detector_model",)),
        ):
            assert main(["--model_path=ferplus", flag]) == 2
            output = capsys.readouterr()
            (line,) = output.err.splitlines()
            assert line.startswith("error: ") and all(fragment in line for fragment in fragments)
            assert "Open " not in output.out
    for flag, fragment in (
        ("--host=127.0.0.1:5000", "'127.0.0.1:5000' has a port, which belongs to --port"),
        ("--host=[::1]:80", "'[::1]:80' has a port"),
        ("--trusted_proxy=proxy.example", "'proxy.example' is no IP address"),
    ):
        with pytest.raises(SystemExit):
            main([flag])
        assert fragment in capsys.readouterr().err
    assert load_script("serve.py").parser().parse_args(["--host=[::1]"]).host == "::1"
    with pytest.raises(UserError, match="--port"):
        listening("127.0.0.1", 99999)
    with pytest.raises(UserError, match="--host"):
        listening("no.such.host.invalid", 0)


def test_which_addresses_are_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.1", "localhost.evil.example", "")))


def test_server_for_others_says_what_it_exposes_and_wants_its_token(monkeypatch):
    monkeypatch.setenv("FERKIT_TOKEN", TOKEN)
    server = Server("--host=0.0.0.0")
    server.host = server.host.replace("0.0.0.0", "127.0.0.1")
    assert server.post(PICTURE)[0] == 401
    assert server.post(PICTURE, Authorization=f"Bearer {TOKEN}")[0] == 200
    status, error = server.stop()
    assert status == 0, error
    assert "whoever reaches 0.0.0.0" in error and TOKEN not in error


# --- its documentation -----------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PYTHON = [text for kind, text in FENCE.findall(PAGE) if kind == "python"]
CURL = [line for kind, text in FENCE.findall(PAGE) if not kind for line in text.splitlines() if line.startswith("curl")]


@pytest.mark.parametrize("code", [*PYTHON, *CURL])
def test_documented_examples_run(code, server, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(PICTURE)
    code = re.sub(r"http://(127.0.0.1|faces.example.org):5000", server.address, code)
    command = ["sh", "-c", f"{code} --silent"] if code.startswith("curl") else [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "Happy" in run.stdout, run.stdout + run.stderr


def test_documented_statuses_are_those_of_the_description(client):
    described = {
        status
        for item in client.get("/api/openapi.json").json["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
        if status >= "400"
    }
    assert set(re.findall(r"^\| (4\d\d|5\d\d) \|", PAGE, re.MULTILINE)) == described | {"401"}


def test_container_starts_the_server_with_what_it_was_given():
    dockerfile = (ROOT / "Dockerfile").read_text()
    entry = json.loads(re.search(r"^ENTRYPOINT (.+)$", dockerfile, re.MULTILINE)[1])
    assert entry[:2] == ["python", "serve.py"] and load_script("serve.py").parser().parse_args(entry[2:])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists() and f"!{name.rstrip('/')}" in ignored
    service = (ROOT / "compose.web.yaml").read_text()
    assert "read_only: true" in service and "127.0.0.1" in service and "FERKIT_TOKEN:?" in service
