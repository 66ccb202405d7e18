"""Measures how many pictures the server recognizes, how long each takes, and how fast the page is in a browser.

python benchmarks/benchmark_server.py
python benchmarks/benchmark_server.py --clients 1 8 --seconds=20 --browser=no

It starts serve.py itself. Each client sends one picture of 640×480 pixels after the other. The browser is Chromium with
a simulated camera of that size: 30 pictures a second of a drawn face that moves. Server, clients and browser share this
machine.
"""

import argparse
import http.client
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit.data.drawn_faces import draw_photo
from ferkit.errors import UserError
from ferkit.flags import Parser, add_yes_no, positive
from ferkit.processes import command

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.02  # seconds that a client waits after it was refused
RATE = 30  # pictures that the camera gives in a second


@command
def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    chromium = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if arguments.browser and None in chromium:
        raise UserError("there is no Chromium: apt-get install chromium chromium-driver, or use --browser=no")
    flags = ["--port=0", *([f"--model_path={arguments.model_path}"] if arguments.model_path else [])]
    server = subprocess.Popen([sys.executable, str(ROOT / "serve.py"), *flags], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = re.search(r"http://(\S+)", server.stdout.readline())
        if address is None:
            raise UserError("the server did not start")
        picture = cv2.imencode(".jpg", next(moving_face(1)), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        measure(address[1], picture, 1, 2)  # all is loaded now
        print("clients  answers/s  refused   median      95%      99%")
        for clients in arguments.clients:
            times, refused = measure(address[1], picture, clients, arguments.seconds)
            middle, high, highest = 1000 * np.percentile(times, (50, 95, 99))
            rate, share = len(times) / arguments.seconds, refused / (len(times) + refused)
            print(
                f"{clients:7}  {rate:9.1f}  {share:7.0%}  {middle:4.0f} ms  {high:4.0f} ms  {highest:4.0f} ms",
                flush=True,
            )
        if arguments.browser:
            measure_page(f"http://{address[1]}", chromium, arguments.seconds)
    finally:
        server.terminate()
        server.wait()
    return 0


def parser() -> argparse.ArgumentParser:
    parser = Parser(description="Time the server and its page.")
    parser.add_argument("--model_path", metavar="PATH", help="as for serve.py")
    parser.add_argument(
        "--clients", nargs="+", type=positive, default=[1, 2, 8, 32], metavar="N", help="(default: 1 2 8 32)"
    )
    parser.add_argument("--seconds", type=positive, default=10, metavar="N", help="of each measurement (default: 10)")
    add_yes_no(parser, "--browser", default=True, help="measure the page in Chromium too")
    return parser


def measure(host: str, picture: bytes, clients: int, seconds: float) -> tuple[list[float], int]:
    """The seconds that each answer took, and how many requests were refused because there were too many."""
    times: list[float] = []
    refused: list[int] = []
    until = time.monotonic() + seconds

    def work() -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        while time.monotonic() < until:
            started = time.perf_counter()
            connection.request("POST", "/api/recognize?small_faces=no", picture, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                times.append(time.perf_counter() - started)
            elif response.status in (429, 503):
                refused.append(response.status)
                time.sleep(PAUSE)
            else:
                raise UserError(f"the server answered {response.status}")
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not times:
        raise UserError("the server gave no answer")
    return times, len(refused)


def measure_page(address: str, chromium: list[str | None], seconds: float) -> None:
    """Prints the frames a second of the page, and the time from the camera's picture to the drawn box."""
    from selenium import webdriver  # here, because --browser=no does not need it

    with tempfile.TemporaryDirectory() as folder:
        camera = Path(folder) / "camera.y4m"
        write_camera(camera)
        options = webdriver.ChromeOptions()
        options.binary_location = str(chromium[0])
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900",
                     "use-fake-ui-for-media-stream", "use-fake-device-for-media-stream",
                     f"use-file-for-fake-video-capture={camera}"):  # fmt: skip
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options, webdriver.ChromeService(chromium[1]))
        try:
            driver.get(address)
            driver.implicitly_wait(30)
            driver.find_element("css selector", "#live .message button").click()
            driver.find_element("css selector", "#live .stage[data-rate]")
            time.sleep(3)  # the first frames are slower
            stage, rates, delays = driver.find_element("css selector", "#live .stage"), [], []
            for _ in range(math.ceil(seconds)):
                time.sleep(1)
                rates.append(float(stage.get_attribute("data-rate") or 0))
                delays.append(float(stage.get_attribute("data-delay") or 0))
        finally:
            driver.quit()
    print(
        f"The page in Chromium: {statistics.median(rates):.1f} frames/s, "
        f"{statistics.median(delays):.0f} ms from the camera's picture to the drawn box (medians)"
    )


def moving_face(frames: int) -> Iterator[np.ndarray]:
    """Pictures 640×480 of one drawn person who moves."""
    photo = draw_photo((3,), np.random.default_rng(5), height=540, width=760)[0]
    for number in range(frames):
        phase = 2 * math.pi * number / 90
        x, y = round(60 + 60 * math.sin(phase)), round(30 + 30 * math.cos(2 * phase))
        yield np.ascontiguousarray(photo[y : y + 480, x : x + 640])


def write_camera(path: Path) -> None:
    """Writes what the simulated camera shows."""
    with open(path, "wb") as file:
        file.write(f"YUV4MPEG2 W640 H480 F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in moving_face(90):
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).tobytes())


if __name__ == "__main__":
    sys.exit(main())
