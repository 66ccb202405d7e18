"""The web page, in a real browser with a simulated camera: what is seen there, and what the buttons do."""

import base64
import csv
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT, Server, moving_faces

from ferkit import Recognizer, VideoPredictor
from ferkit.constants import EMOTIONS
from ferkit.video.recording import Recorder
from ferkit.vision.pictures import read_image

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: see requirements-dev.txt")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("there is no Chromium: apt-get install chromium chromium-driver", allow_module_level=True)

SECONDS = 60  # that a slow machine may take for anything
BRIGHT = {"Happy": (255, 207, 63), "Surprise": (255, 159, 74)}  # RGB of the boxes
PORTRAIT = ROOT / "docs" / "portrait.jpg"


class Page:
    """The page in a browser: an eye and a hand."""

    def __init__(self, folder: Path, camera: Path | None, allowed: bool = True):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900"]
        if camera is not None:
            flags += ["use-fake-device-for-media-stream", f"use-file-for-fake-video-capture={camera}"]
        if allowed:
            flags.append("use-fake-ui-for-media-stream")
        for flag in flags:
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(SECONDS)
        self.downloads = folder / "downloads"
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.resize(1280, 900)

    def command(self, name: str, **parameters: Any) -> None:
        """Sends a command of the browser's debugging protocol."""
        self.driver.execute_cdp_cmd(name, parameters)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        size = {"width": width, "height": height, "mobile": mobile, "deviceScaleFactor": 1}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def open(self, address: str, part: str = "live") -> None:
        self.driver.get("about:blank")  # a change of the fragment alone would not load the page anew
        self.driver.get(f"{address}/#{part}")
        self.wait("document.querySelector('#connection').classList.contains('good')")
        self.wait(f"!document.querySelector('#{part}').hidden && !document.querySelector('#model').disabled")

    def ask(self, expression: str) -> Any:
        """The value of an expression in JavaScript."""
        return self.driver.execute_script(f"return {expression}")

    def wait(self, expression: str) -> Any:
        """Waits until the expression is true. Returns its value."""
        until = time.monotonic() + SECONDS
        while not (value := self.ask(expression)):
            assert time.monotonic() < until, f"{expression} did not become true; the page says {self.text('body')!r}"
            time.sleep(0.1)
        return value

    def text(self, selector: str) -> str:
        return self.ask(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def press(self, label: str) -> None:
        """Clicks on the button with this label that can be seen."""
        labelled = f"//button[normalize-space()='{label}'] | //label[normalize-space()='{label}']"
        (button,) = [one for one in self.driver.find_elements("xpath", labelled) if one.is_displayed()]
        button.click()

    def choose(self, selector: str, *paths: Path) -> None:
        """Chooses files in a dialog for files."""
        self.driver.find_element("css selector", selector).send_keys("\n".join(map(str, paths)))

    def saved(self, name: str) -> Path:
        """The file of this name, once it is saved."""
        until = time.monotonic() + SECONDS
        while not (found := sorted(self.downloads.glob(name))):
            assert time.monotonic() < until, f"{name} was not saved"
            time.sleep(0.1)
        return found[-1]

    def picture(self, selector: str) -> np.ndarray:
        """The pixels of a canvas: RGBA (H, W, 4) uint8."""
        url = self.ask(f"document.querySelector({json.dumps(selector)}).toDataURL()")
        content = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
        return cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)

    def faults(self) -> list[str]:
        """What the console says, other than of requests that failed."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["source"] != "network"]


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """A picture 640×480 of two drawn people: left a happy one, right a surprised one."""
    frame = next(iter(moving_faces(1)))
    return cv2.copyMakeBorder(frame, 120, 120, 0, 0, cv2.BORDER_REPLICATE)


@pytest.fixture(scope="module")
def page(people, tmp_path_factory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    page = Page(folder, write_camera(folder / "camera.y4m", people))
    yield page
    page.driver.quit()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def write_camera(path: Path, picture: np.ndarray) -> Path:
    """Writes what a simulated camera shows again and again."""
    height, width = picture.shape[:2]
    pixels = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).tobytes()
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C420jpeg\n".encode() + (b"FRAME\n" + pixels) * 3)
    return path


def start_camera(page: Page) -> None:
    page.press("Start the camera")
    page.wait("document.querySelectorAll('#live .faces button').length == 2")


def extent(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels of this colour."""
    near = (np.abs(picture[..., :3].astype(int) - colour).max(axis=2) < 12) & (picture[..., 3] > 250)
    rows, columns = np.flatnonzero(near.sum(axis=1) > 8), np.flatnonzero(near.sum(axis=0) > 8)
    return columns[0], rows[0], columns[-1], rows[-1]


# --- live ------------------------------------------------------------------------------------------------------------


def test_live_boxes_lie_on_the_faces_with_their_expressions(page, server, people):
    page.open(server.address)
    assert "Start the camera" in page.text("#live .message"), "it does not start by itself"
    start_camera(page)
    recognizer = Recognizer("ferplus", VideoPredictor(small_faces=False))  # as in video
    expected = {face.expression: face.box for face in recognizer.recognize(people)}
    assert set(expected) == set(BRIGHT)
    page.click("#live .check input")  # not mirrored
    for mirrored in (False, True):
        time.sleep(0.5)
        overlay = page.picture("#live .overlay")
        scale = overlay.shape[1] / 640
        assert overlay.shape[0] == pytest.approx(480 * scale, abs=2), "the shape of the camera's picture"
        for expression, box in expected.items():
            left, right = (640 - box.x - box.width, 640 - box.x) if mirrored else (box.x, box.x + box.width)
            edges = np.clip([left, box.y, right, box.y + box.height], 0, [640, 480, 640, 480]) * scale
            assert extent(overlay, BRIGHT[expression]) == pytest.approx(edges, abs=10)
        page.click("#live .check input")
    assert not page.faults()


def test_chart_shows_the_selected_face(page, server):
    page.open(server.address)
    start_camera(page)
    labels = [page.text(f"#live .faces button:nth-child({index})") for index in (1, 2)]
    assert ["Happy" in labels[0], "Surprise" in labels[1]] == [True, True], labels
    assert page.text("#live .bars .best").startswith("Happy")
    assert page.ask("parseFloat(document.querySelector('#live .bars .best .fill').style.width)") > 50
    page.click("#live .faces button:nth-child(2)")
    page.wait("document.querySelector('#live .bars .best').innerText.startsWith('Surprise')")
    page.driver.switch_to.active_element.send_keys("\ue012")  # the left arrow
    page.wait("document.querySelector('#live .bars .best').innerText.startsWith('Happy')")
    page.wait("document.querySelectorAll('#live .history canvas').length == 2")
    page.wait("document.querySelector('#live .history canvas').getAttribute('aria-label').includes('Happy')")
    assert (page.picture("#live .history canvas")[..., 3] > 0).any(), "the strip is drawn"
    page.wait("document.querySelector('#live .spoken').textContent.includes('Face 1: Happy')")
    page.wait("document.querySelector('#live .figures').textContent.includes('frames/s')")


def test_pause_snapshot_and_stop(page, server, people):
    page.open(server.address)
    start_camera(page)
    page.press("Save snapshot")
    snapshot = read_image(page.saved("snapshot_*.png"))
    assert snapshot.shape == people.shape
    changed = np.abs(snapshot.astype(int) - people[:, ::-1]).max(axis=2) > 60
    assert 0.005 < changed.mean() < 0.2, "the camera's picture, mirrored, with boxes and labels"
    page.press("Pause")
    time.sleep(1)
    requests = "performance.getEntriesByType('resource').length"
    before = page.ask(requests)
    time.sleep(2)
    assert page.ask(requests) <= before + 1 and page.ask("document.querySelector('#live video').paused")
    page.press("Go on")
    page.wait(f"{requests} > {before + 3}")
    page.press("Stop")
    assert "Start the camera" in page.text("#live .message")
    assert page.ask("document.querySelector('#live video').srcObject") is None
    assert not page.faults()


@pytest.mark.slow
def test_model_can_be_changed_while_the_camera_runs(page, server):
    page.open(server.address)
    start_camera(page)
    page.ask("performance.clearResourceTimings()")
    page.click("#model option[value=fer2013]")
    page.wait("performance.getEntriesByType('resource').some(({ name }) => name.includes('model=fer2013'))")
    page.wait("document.querySelectorAll('#live .faces button').length >= 1")
    assert not page.faults()


@pytest.mark.slow
def test_page_goes_on_when_the_server_is_back(page):
    server = Server()
    page.open(server.address)
    start_camera(page)
    server.process.kill()
    server.process.communicate()
    page.wait("document.querySelector('#live .message').innerText.includes('does not answer')")
    page.wait("document.querySelector('#connection').classList.contains('bad')")
    again = Server(f"--port={server.host.split(':')[1]}")
    page.wait("document.querySelectorAll('#live .faces button').length == 2")
    assert page.text("#live .message") == "" and "Connected" in page.text("#connection")
    assert "Face 3" in page.text("#live .faces"), "no number comes again"
    assert not page.faults()
    page.driver.get("about:blank")
    again.stop()


@pytest.mark.slow
def test_page_asks_for_the_token(page):
    server = Server("--token=a-token-for-the-tests")
    page.driver.get(server.address)
    page.wait("document.querySelector('#token-dialog').open")
    page.choose("#token", "wrong\n")
    page.wait("!document.querySelector('#token-wrong').hidden")
    page.choose("#token", "a-token-for-the-tests\n")
    page.wait("!document.querySelector('#model').disabled")
    start_camera(page)
    page.driver.get("about:blank")
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("camera", "text"), [(True, "The camera was refused"), (False, "No camera was found")])
def test_no_camera_is_told_in_words(camera, text, server, people, tmp_path):
    page = Page(tmp_path, write_camera(tmp_path / "camera.y4m", people) if camera else None, allowed=not camera)
    try:
        if camera:
            refused = {"permission": {"name": "camera"}, "setting": "denied", "origin": server.address}
            page.command("Browser.setPermission", **refused)
        page.open(server.address)
        page.press("Start the camera")
        page.wait(f"document.querySelector('#live .message').innerText.includes('{text}')")
        page.press("Start the camera")  # can be tried again
        page.wait(f"document.querySelector('#live .message').innerText.includes('{text}')")
        assert not page.faults()
    finally:
        page.driver.quit()


# --- photographs -----------------------------------------------------------------------------------------------------


def test_photographs_are_annotated_and_their_table_is_saved(page, server, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(PORTRAIT.read_bytes()[:3000])
    cv2.imwrite(str(tmp_path / "empty.png"), np.full((90, 120, 3), 200, np.uint8))
    page.open(server.address, "photographs")
    names = json.dumps([*EMOTIONS, *"abcdefghijklm"])
    colours = page.ask(f"import('/static/colours.js').then((module) => {names}.map(module.colour))")
    assert len({*colours}) == 20, "each expression of a model has its own"
    page.choose("#files", PORTRAIT, tmp_path / "broken.jpg", tmp_path / "empty.png")
    page.wait("document.querySelectorAll('.photograph .hint, .photograph .bad').length == 3")
    assert "damaged or cut short" in page.text(".photograph .bad")
    assert "No face," in page.text("#gallery") and "Happy" in page.text(".photograph table")
    (face,) = Recognizer("ferplus").recognize(read_image(PORTRAIT))
    canvas = page.picture(".photograph:last-child canvas")
    assert canvas.shape[:2] == read_image(PORTRAIT).shape[:2]
    left, _, right, bottom = extent(canvas, BRIGHT["Happy"])
    box = face.box
    assert (left, right, bottom) == pytest.approx((box.x, box.x + box.width, box.y + box.height), abs=4)
    page.press("Save JSON")
    lines = [json.loads(line) for line in page.saved("faces.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == ["portrait.jpg", "empty.png"]
    assert lines[0]["faces"][0]["box"] == list(box)
    page.press("Save CSV")
    rows = list(csv.DictReader(page.saved("faces.csv").read_text().splitlines()))
    assert [(row["image"], row["faces"], row["expression"]) for row in rows] == [
        ("portrait.jpg", "1", "Happy"),
        ("empty.png", "0", ""),
    ]
    assert float(rows[0]["Happy"]) == pytest.approx(face.confidence, abs=1e-4)
    assert float(rows[0]["score"]) == pytest.approx(face.score, abs=1e-4)
    page.press("Clear")
    assert page.text("#gallery") == "" and not page.faults()


def test_photographs_can_be_dropped_and_pasted(page, server):
    page.open(server.address, "photographs")
    encoded = base64.b64encode(PORTRAIT.read_bytes()).decode()
    page.driver.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
        const make = { bubbles: true, cancelable: true };
        document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { ...make, dataTransfer: data }));
        document.dispatchEvent(new ClipboardEvent("paste", { ...make, clipboardData: data }));
        """,
        encoded,
    )
    page.wait("document.querySelectorAll('.photograph table').length == 2")
    assert page.text(".photograph h3") == "dropped.jpg" and not page.faults()


# --- video -----------------------------------------------------------------------------------------------------------


def test_video_is_watched_and_its_table_and_plot_are_saved(page, server, tmp_path):
    with Recorder(tmp_path / "party.mp4", 25) as recorder:
        for number, frame in enumerate(moving_faces(75)):
            recorder.write(frame, number / 25)
    page.open(server.address, "video")
    page.choose("#video-file", tmp_path / "party.mp4")
    page.wait("document.querySelector('#video video').ended")
    time.sleep(1)
    page.press("Save table")
    rows = list(csv.DictReader(page.saved("party_faces.csv").read_text().splitlines()))
    seconds = [float(row["seconds"]) for row in rows]
    assert len(rows) >= 6 and seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] <= 3.1
    assert {row["face"] for row in rows} == {"1", "2"}
    for row in rows:
        assert 0 <= int(row["x"]) + int(row["width"]) / 2 <= 640
        share = [float(row[name]) for name in ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")]
        assert math.fsum(share) == pytest.approx(1, abs=0.001) and max(share) == float(row["confidence"])
    first = {row["expression"] for row in rows if row["face"] == "1"}
    assert "Happy" in first
    page.press("Save plot")
    plot = read_image(page.saved("party_expressions.png"))
    assert plot.shape[1] > 1000 and len(np.unique(plot.reshape(-1, 3), axis=0)) > 4
    assert not page.faults()


@pytest.mark.slow
def test_video_that_cannot_be_played_is_told_in_words(page, server):
    page.open(server.address, "video")
    page.choose("#video-file", PORTRAIT)
    page.wait("document.querySelector('#video .message').innerText.includes('cannot play this video')")


# --- every part ------------------------------------------------------------------------------------------------------


def test_page_fits_a_telephone_and_is_used_by_keyboard(page, server):
    page.open(server.address)
    page.resize(360, 740, mobile=True)
    try:
        for tab in ("live", "photographs", "video"):
            assert page.ask("document.documentElement.scrollWidth") <= 360, tab
            assert page.ask("document.activeElement.id") in ("", f"{tab}-tab")
            page.ask(f"document.querySelector('#{tab}-tab').focus()")
            page.driver.switch_to.active_element.send_keys("\ue014")  # the right arrow
        assert page.ask("document.activeElement.id") == "live-tab"
    finally:
        page.resize(1280, 900)


@pytest.mark.slow
def test_every_control_has_a_name_and_every_text_enough_contrast(page, server):
    page.open(server.address)
    names = page.ask(
        """[...document.querySelectorAll("button, select, input")].filter((one) => !one.labels?.length
        && !one.textContent.trim() && !one.getAttribute("aria-label")).map((one) => one.outerHTML)"""
    )
    assert names == []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.command("Emulation.setEmulatedMedia", features=[feature])
        style = "getComputedStyle(document.documentElement).getPropertyValue"
        for text, ground in (("text", "page"), ("soft", "page"), ("soft", "card"), ("bad", "card"), ("accent", "page")):
            colours = [page.ask(f"{style}('--{name}').trim()") for name in (text, ground)]
            assert contrast(*colours) >= 4.5, (scheme, text, ground)
        for expression in ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral", "Contempt"):
            colours = [page.ask(f"{style}('--{name}').trim()") for name in (expression, "card")]
            assert contrast(*colours) >= 3, (scheme, expression)
    page.command("Emulation.setEmulatedMedia", features=[])


def contrast(one: str, other: str) -> float:
    """The contrast of two colours like #2456c8 (WCAG 2)."""

    def luminance(colour: str) -> float:
        values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.slow
def test_page_of_the_api_shows_every_operation(page, server):
    page.driver.get(f"{server.address}/api")
    page.wait("document.querySelectorAll('.operation').length == 6")
    assert "POST /api/recognize" in page.text("main") and not page.faults()
