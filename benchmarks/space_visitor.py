"""Visit the Space by a headless browser with a fake camera."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mma_mrnnet.cli.demo import astronaut, camera_move

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

LAG = """() => {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  canvas.width = canvas.height = 16;
  const video = [...document.querySelectorAll("video")].find(each => each.srcObject);
  const seen = window.seen = [];
  let dark = null, none = null;
  setInterval(() => {
    pen.drawImage(video, 0, 0, 16, 16);
    const mean = pen.getImageData(0, 0, 16, 16).data.reduce((sum, value) => sum + value, 0) / 1024;
    const said = document.body.innerText.includes("No face in this frame");
    if (mean < 84 !== dark) seen.push(["camera", dark = mean < 84, performance.now() / 1000]);
    if (said !== none) seen.push(["chart", none = said, performance.now() / 1000]);
  }, 20);
}"""
"""Record when the camera turns from face to wall and back, and when the chart says so."""


def lags(seen: list[tuple[str, bool, float]]) -> list[float]:
    """Return seconds from each turn of the camera, except the first, to the chart that follows."""
    found = []
    for place, (what, state, turned_s) in enumerate(seen):
        if what == "camera" and place:
            said = (
                later_s
                for kind, later, later_s in seen[place:]
                if kind == "chart" and later == state
            )
            found.append(next(said, float("inf")) - turned_s)
    while found and found[-1] == float("inf"):
        found.pop()
    return found


def camera_film(path: Path, seconds: float = 4, fps: int = 20, wall: bool = True) -> Path:
    """Write the film of the fake camera: a face, then a dark grey wall."""
    size = (640, 480)
    images = list(camera_move(astronaut(), int(seconds * fps), size))
    if wall:
        half = len(images) // 2
        images[half:] = [np.full((size[1], size[0], 3), 20, np.uint8)] * (len(images) - half)
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def flags(film: Path) -> list[str]:
    """Return Chromium's arguments for a camera that shows the film and asks nobody."""
    return [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]


@contextlib.contextmanager
def space_process() -> Iterator[tuple[str, float]]:
    """Start the Space in a process: its address, and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "spaces_demo" / "app.py")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    break
            except OSError:
                if server.poll() is not None or time.perf_counter() - started > 120:
                    raise RuntimeError("the Space does not start") from None
                time.sleep(0.1)
        yield url, time.perf_counter() - started
    finally:
        server.terminate()
        server.wait()
