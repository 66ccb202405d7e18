"""--download against a local server that plays Kaggle's answers, and that of FER+. Nothing else is asked."""

import base64
import hashlib
import io
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import convert_fer2013_to_images_and_landmarks as conversion
from ferkit.constants import EMOTIONS
from ferkit.data import download, ferplus

pytest.importorskip("kagglehub")
kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")  # kagglehub for Python 3.10 does without

FEW = {"Training": (2, 1, 1, 1, 1, 1, 1), "PublicTest": (1,) * 7, "PrivateTest": (1,) * 7}
PIXELS = " ".join(str(value % 256) for value in range(48 * 48))
SPLIT_AND_LABEL = [(split, label) for split, counts in FEW.items() for label, n in enumerate(counts) for _ in range(n)]
CSV = "emotion, Usage, pixels\n" + "".join(f"{label},{split},{PIXELS}\n" for split, label in SPLIT_AND_LABEL)
COLUMNS = (4, 5, 6, 1, 3, 2, 0)  # of FER+, for each of EMOTIONS
VOTES = "Usage,Image name," + ",".join(ferplus.COLUMNS) + "\n"
VOTES += "".join(
    f"{split},x.png,{','.join('9' if i == COLUMNS[label] else '0' for i in range(10))}\n"
    for split, label in SPLIT_AND_LABEL
)
RULES = "You must accept this competition's rules before you'll be able to download files."


class Kaggle(ThreadingHTTPServer):
    """Gives each file of `files`; `refusal` is its answer to every question instead: status and message."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"icml_face_data.csv": CSV.encode(), "fer2013new.csv": VOTES.encode()}
        self.refusal: tuple[int, str] | None = None
        self.checksum: str | None = None
        self.cut: dict[str, int] = {}  # of a file: bytes after which the connection is lost, once
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        question = self.path.rpartition("/")[2]
        self.server.asked.append(question)
        if self.server.refusal:
            status, message = self.server.refusal
            return self.give(status, json.dumps({"code": status, "message": message}).encode())
        if question == "GetDataset":
            return self.give(200, json.dumps({"currentVersionNumber": 3}).encode())
        name = {"DownloadDataFile": "icml_face_data.csv", "DownloadDataset": "archive.zip"}[question]
        self.send_response(302)
        self.send_header("Location", f"{self.server.address}/{name}")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def give(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        content, begin = self.server.files[self.path[1:]], 0
        if asked := self.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.server.asked.append(f"{self.path[1:]} from {begin}")
        checksum = self.server.checksum or base64.b64encode(hashlib.md5(content).digest()).decode()
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.send_header("x-goog-hash", f"md5={checksum}")
        self.end_headers()
        self.wfile.write(content[begin : self.server.cut.pop(self.path[1:], len(content))])
        self.close_connection = True


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_API_TOKEN": "token",
        "NO_PROXY": "*",
        "HOME": str(tmp_path),
    }
    values |= {"KAGGLEHUB_CACHE": str(tmp_path / "cache"), "KAGGLE_CONFIG_DIR": str(tmp_path)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "OFFICIAL", FEW)
    with Kaggle() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.address)
        monkeypatch.setattr(ferplus, "ADDRESS", f"{server.address}/fer2013new.csv")
        yield server
        server.shutdown()


def refused(capsys, *flags: str) -> str:
    """The one line of an error after which nothing is converted."""
    assert conversion.main(["--features=none", *flags]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and not Path("fer2013_features").exists()
    return error[0]


def test_official_counts_are_those_of_fer2013():
    assert [sum(counts) for counts in download.OFFICIAL.values()] == [28_709, 3_589, 3_589]


def test_competition_and_votes_are_fetched_once_and_converted(kaggle, capsys):
    flags = ["--download", "--ferplus=fer2013new.csv", "--features=none"]
    assert conversion.main(flags) == 0
    images = np.load("fer2013_features/Training/images.npy")
    assert images.shape == (8, 48, 48) and (images.reshape(8, -1)[:, :300] == np.arange(300) % 256).all()
    assert Path("fer2013new.csv").read_text() == VOTES and (np.load("fer2013_features/Training/votes.npy").sum() == 72)
    assert kaggle.asked == ["DownloadDataFile", "icml_face_data.csv from 0", "fer2013new.csv from 0"]
    kaggle.refusal = (500, "busy")
    kaggle.shutdown()
    kaggle.server_close()
    assert conversion.main(flags) == 0, "from the cache, when Kaggle is not reached"


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        ((403, RULES), "the rules are not accepted: log in, accept them at https://www.kaggle.com/c/challenges-in-"),
        ((403, "The competition has ended."), "the competition is closed to this account (The competition has ended.)"),
        ((404, "Not found"), "the competition is closed to this account (Not found): see https://www.kaggle.com/c/"),
        (
            (401, "Unauthenticated"),
            "Kaggle does not accept the token: make a new one at https://www.kaggle.com/settings",
        ),
        ((503, "busy"), "Kaggle answers 503 (busy): try again later"),
    ],
)
def test_refusals_are_one_line(kaggle, capsys, refusal, line):
    kaggle.refusal = refusal
    assert line in refused(capsys, "--download")


def test_missing_token_is_one_line(kaggle, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert "Kaggle's token is missing: make one at https://www.kaggle.com/settings" in refused(capsys, "--download")
    Path("kaggle.json").write_text("{")
    assert "Kaggle's token in kaggle.json is damaged" in refused(capsys, "--download")
    assert not kaggle.asked


def test_wrong_checksum_is_one_line(kaggle, capsys):
    kaggle.checksum = base64.b64encode(b"0" * 16).decode()
    assert "has another checksum than Kaggle says: run the same command again" in refused(capsys, "--download")
    kaggle.checksum = None
    assert conversion.main(["--features=none", "--download"]) == 0


def test_lost_connection_is_one_line_and_the_same_command_goes_on(kaggle, capsys, monkeypatch):
    monkeypatch.setattr("kagglehub.clients.CHUNK_SIZE", 10_000)
    kaggle.cut = {"icml_face_data.csv": 50_000}
    assert "the connection was lost: check the network; the same command goes on" in refused(capsys, "--download")
    assert conversion.main(["--features=none", "--download"]) == 0
    assert kaggle.asked[-1] == "icml_face_data.csv from 50000"


def test_network_that_is_down_is_one_line(kaggle, capsys):
    kaggle.shutdown()
    kaggle.server_close()
    assert "Kaggle is not reached" in refused(capsys, "--download")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_is_one_line(kaggle, capsys):
    place = Path("cache/competitions") / download.COMPETITION / download.FILE
    place.parent.mkdir(parents=True)
    place.symlink_to("/dev/full")
    assert "no space is left on its disk" in refused(capsys, "--download")


def test_missing_package_is_one_line(kaggle, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", None)
    assert "kagglehub is missing: run 'pip install kagglehub'" in refused(capsys, "--download")


def test_wrong_counts_are_one_line(kaggle, capsys):
    kaggle.files["icml_face_data.csv"] = CSV.encode().replace(b"\n0,Training", b"\n1,Training", 1)
    line = refused(capsys, "--download")
    assert "it has 8 faces of Training (1, 2, 1, 1, 1, 1, 1), not 8 (2, 1, 1, 1, 1, 1, 1): delete it" in line


# --- a public dataset ------------------------------------------------------------------------------------------------


def archive(test_faces: int = 2) -> bytes:
    """As of msambare/fer2013: test has PublicTest and PrivateTest."""
    import cv2

    picture = cv2.imencode(".png", np.arange(48 * 48, dtype=np.uint8).reshape(48, 48))[1].tobytes()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for label, name in enumerate(EMOTIONS):
            for split, count in (("train", FEW["Training"][label]), ("test", test_faces)):
                for number in range(count):
                    zipped.writestr(f"{split}/{name.lower()}/{number}.png", picture)
    return content.getvalue()


def test_public_dataset_needs_no_token(kaggle, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    kaggle.files["archive.zip"] = archive()
    assert conversion.main(["--download=msambare/fer2013", "--features=none"]) == 0
    assert len(np.load("fer2013_features/Training/images.npy")) == 8
    assert len(np.load("fer2013_features/PrivateTest/images.npy")) == 14
    assert kaggle.asked == ["GetDataset", "DownloadDataset", "archive.zip from 0"]
    assert conversion.main(["--download=msambare/fer2013", "--features=none"]) == 0
    assert kaggle.asked[3:] == ["GetDataset"], "the pictures are in the cache"


def test_public_dataset_that_is_another_is_one_line(kaggle, capsys):
    kaggle.files["archive.zip"] = archive(test_faces=1)
    line = refused(capsys, "--download=msambare/fer2013")
    assert "it has 7 faces of PrivateTest (1, 1, 1, 1, 1, 1, 1), not 14" in line
    kaggle.refusal = (404, "Not found")
    assert "there is no dataset for everybody at https://www.kaggle.com/datasets/some/thing" in refused(
        capsys, "--download=some/thing"
    )


def test_flags_that_contradict_each_other_are_one_line(kaggle, capsys):
    assert "--download and --input are two sources" in refused(capsys, "--download", "--input=x.csv")
    assert "leave out --ferplus" in refused(capsys, "--download=msambare/fer2013", "--ferplus=v.csv")
    with pytest.raises(SystemExit):
        conversion.main(["--download=https://user:secret@host/x"])
    assert "secret" not in capsys.readouterr().err and not kaggle.asked


# --- FER+ ------------------------------------------------------------------------------------------------------------


def fetched(capsys) -> str:
    return refused(capsys, "--download", "--ferplus=votes/fer2013new.csv")


def test_votes_that_are_cut_off_are_continued(kaggle, capsys):
    kaggle.cut = {"fer2013new.csv": 300}
    assert "fer2013new.csv is not reached, or the connection was lost" in fetched(capsys)
    assert conversion.main(["--features=none", "--download", "--ferplus=votes/fer2013new.csv"]) == 0
    assert kaggle.asked[-1] == "fer2013new.csv from 300"
    assert [path.name for path in Path("votes").iterdir() if not path.name.endswith(".lock")] == ["fer2013new.csv"]


def test_other_votes_are_one_line(kaggle, capsys):
    kaggle.files["fer2013new.csv"] = VOTES.rpartition("PrivateTest")[0].encode()
    assert "is not FER+ (it has 8, 7, 6 rows of Training, PublicTest, PrivateTest): try again" in fetched(capsys)
    kaggle.files["fer2013new.csv"] = b"<html>"
    assert "is not FER+" in fetched(capsys)
    assert not os.path.exists("votes/fer2013new.csv")
