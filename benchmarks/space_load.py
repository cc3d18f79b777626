"""How long the Space takes: page load, upload to result, five users at once, live chart.

    python benchmarks/space_load.py [--runs 5]

Starts `spaces_demo/app.py`, visits it with a headless Chromium, then with five API clients at once,
each with a 12 s 720p clip of its own, and checks that every answer is of the right clip. Writes
`benchmarks/results/space_load.json`.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from machine import machine
from playwright.sync_api import Browser, sync_playwright
from space_visitor import CHROMIUM, LAG, camera_film, flags, lags, space_process

from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.video.writing import write_video

RESULT = Path(__file__).parent / "results" / "space_load.json"
USERS = 5
FPS, SECONDS, SIZE = 30, 12, (1280, 720)


def clip(path: Path, without_face_s: int) -> Path:
    """Write a 12 s clip that begins with some seconds of a wall, so that answers differ."""
    images = list(camera_move(astronaut(), FPS * SECONDS, SIZE))
    wall = [np.full_like(images[0], 90)] * (FPS * without_face_s)
    return write_video(path, [*wall, *images[len(wall) :]], FPS)


def spread(seconds: list[float]) -> dict[str, float | int]:
    """Return median and worst."""
    return {"median_s": statistics.median(seconds), "worst_s": max(seconds), "count": len(seconds)}


def in_browser(browser: Browser, url: str, video: Path, runs: int) -> dict[str, dict]:
    """Return seconds until the page is usable, and from upload to the last figure."""
    load, result = [], []
    for _ in range(runs):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        started = time.perf_counter()
        page.goto(url)
        page.get_by_role("button", name="Analyse").wait_for()
        load.append(time.perf_counter() - started)
        started = time.perf_counter()
        page.set_input_files("input[type=file]", str(video))
        page.locator("[data-testid='Clip-player']").wait_for()
        page.get_by_role("button", name="Analyse").click()
        page.get_by_role("heading", name="Action units").wait_for(timeout=120_000)
        result.append(time.perf_counter() - started)
        context.close()
    return {"page_load": spread(load), "upload_to_result": spread(result)}


def live(browser: Browser, url: str, seconds: float) -> dict[str, float | int]:
    """Return the seconds after which the chart follows the camera."""
    page = browser.new_context().new_page()
    page.goto(url)
    page.get_by_role("tab", name="Live").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="capture photo").click()
    page.get_by_text("No face in this frame").wait_for()
    page.evaluate(LAG)
    page.wait_for_timeout(1000 * seconds)
    found = lags(page.evaluate("window.seen"))
    page.context.close()
    return spread(found)


def together(url: str, clips: list[Path], rounds: int) -> dict[str, object]:
    """Return upload to answer of users at once; no answer may be lost or swapped."""

    def ask(user: int) -> tuple[float, bool]:
        client = Client(url, verbose=False)
        started = time.perf_counter()
        (person,) = client.predict(handle_file(str(clips[user])), False, api_name="/analyse")
        own = person["frames_sampled"] == 2 * SECONDS and person["frames_with_face"] == 2 * (
            SECONDS - user
        )
        return time.perf_counter() - started, own

    answers = []
    with ThreadPoolExecutor(len(clips)) as users:
        for _ in range(rounds):
            answers += list(users.map(ask, range(len(clips))))
    return {
        **spread([seconds for seconds, _ in answers]),
        "users": len(clips),
        "answers_of_their_own_clip": sum(own for _, own in answers),
    }


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    load_average = os.getloadavg()[0]  # what else the machine was doing
    with (
        tempfile.TemporaryDirectory() as name,
        space_process() as (url, start_s),
        sync_playwright() as running,
    ):
        clips = [clip(Path(name) / f"user{user}.mp4", user) for user in range(USERS)]
        film = camera_film(Path(name) / "film.mjpeg")
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags(film))
        result = {
            "what": f"spaces_demo/app.py, {SECONDS} s clips of {SIZE[0]}x{SIZE[1]}, "
            "browser and server on one machine",
            "command": f"python benchmarks/space_load.py --runs {runs}",
            "machine": machine(),
            "load_average": round(load_average, 1),
            "server_start_s": start_s,
            "clip_mb": clips[0].stat().st_size / 1e6,
            **in_browser(browser, url, clips[0], runs),
            "live_lag": live(browser, url, 6 * runs),
            "at_once": together(url, clips, runs),
        }
        browser.close()
    write_json(RESULT, rounded(result))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
