"""The Space as visitors meet it: a real browser, a fake camera that shows a real face, several people at once."""

import csv
import gc
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.prediction import VideoPrediction
from mma_mrnnet.prediction.streaming import LiveReader
from mma_mrnnet.video.writing import write_video

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright (the dev extra)"
)
pytest.importorskip("gradio", reason="the Space needs gradio (the space extra)")

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    from space_visitor import CHROMIUM, LAG, camera_film, flags, lags

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"
    ),
]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
WAIT_MS = 30_000  # two cores may be shared by many


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Files that visitors bring."""
    folder = tmp_path_factory.mktemp("clips")
    photo = astronaut()
    write_video(folder / "face.mp4", camera_move(photo, 50), 25)
    write_video(folder / "still.mp4", (photo for _ in range(3 * 10)), 10)
    write_video(
        folder / "nobody.mp4", (np.full((120, 160, 3), 90, np.uint8) for _ in range(20)), 10
    )
    write_video(folder / "long.mp4", (np.full((48, 64, 3), 90, np.uint8) for _ in range(130)), 1)
    (folder / "text.mp4").write_text("not a video")
    (folder / "large.mp4").write_bytes(bytes(3_000_000))
    return folder


@pytest.fixture(scope="module")
def url(space_app, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        page = space_app.build()
        options = {
            **space_app.LAUNCH,
            "max_file_size": "2mb",
        }  # the real limit's message, with less to send
        _, address, _ = page.launch(
            prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **options
        )
        yield address
        page.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    camera = camera_film(tmp_path_factory.mktemp("camera") / "film.mjpeg")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=flags(camera))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, url):
    """Opens pages for visitors; what went wrong in any of them fails the test, unless `allowed` names it."""
    faults, contexts = [], []
    allowed = [
        "The play() request was interrupted"
    ]  # by Chromium, where a player goes while it starts

    def watched(page):
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda asked: asked.url.startswith((url, "data:", "blob:")) or faults.append(asked.url),
        )
        return page

    def opened(**settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = watched(context.new_page())
        page.set_default_timeout(WAIT_MS)
        page.goto(url)
        page.get_by_role("button", name="Analyse").wait_for()
        return page

    opened.allowed = allowed
    yield opened
    for context in contexts:
        context.close()
    assert [fault for fault in faults if not any(words in fault for words in allowed)] == []


def analysed(page, clip=None):
    """The page after its answer."""
    if clip is not None:
        page.set_input_files("input[type=file]", str(clip))
        player(page).wait_for()
    page.get_by_role("button", name="Analyse").click()
    page.locator(".mma-bar").first.wait_for()
    page.get_by_role("heading", name="Action units").wait_for()
    return page


def player(page):
    """The clip that is to be analysed; the examples are videos too."""
    return page.locator("[data-testid='Clip-player']")


def toast(page):
    """The message that the visitor reads."""
    return page.locator(".toast-body").first.inner_text()


def downloaded(page, name):
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    return waiting.value.path().read_text("utf-8")


def bars(page):
    """The intensities as they stand on the page."""
    labels = page.locator(".mma-bar:visible").evaluate_all(
        "bars => bars.map(bar => bar.getAttribute('aria-label'))"
    )
    return {name: float(value) for name, value in (label.rsplit(" ", 1) for label in labels)}


def overflow(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def test_an_uploaded_clip_gives_bars_moments_courses_faces_and_both_files(visit, clips):
    page = analysed(visit(), clips / "face.mp4")
    shown = bars(page)
    assert sorted(shown) == sorted(REACTIONS)
    assert page.get_by_text("A face in 4 of 4 frames, 2.0 s.").is_visible()
    for heading in (
        "Which moments carried the result",
        "Valence and arousal",
        "Expressions",
        "Action units",
    ):
        assert page.get_by_role("heading", name=heading).is_visible()
    assert page.locator(".mma-strip img").count() == 4
    assert page.get_by_text("learnt from a simulator").is_visible()
    result = json.loads(downloaded(page, "Everything (JSON)"))
    assert {
        name: round(value, 2) for name, value in result["intensities"].items()
    } == pytest.approx(shown, abs=0.011)
    table = list(csv.DictReader(downloaded(page, "Every frame (CSV)").splitlines()))
    assert [row["time_s"] for row in table] == ["0.0", "0.52", "1.0", "1.52"]
    assert overflow(page) <= 0


def test_an_example_in_which_the_face_leaves_shows_gaps(visit):
    page = visit()
    page.locator("button.gallery-item").nth(1).click()
    player(page).wait_for()
    analysed(page)
    # 10 of 16 frames have a face; a row each: what frames add to 7 targets, 7 estimates, valence, arousal,
    # 7 expressions and 17 units.
    assert page.get_by_text("A face in 10 of 16 frames").is_visible()
    assert page.locator(".mma svg .gap").count() == 6 * (7 + 7 + 2 + 7 + 17)


def test_two_people_are_chosen_by_their_pictures(visit):
    page = visit()
    page.locator("button.gallery-item").nth(2).click()
    player(page).wait_for()
    analysed(page)
    first = json.loads(downloaded(page, "Everything (JSON)"))
    page.locator("#people button.thumbnail-lg").nth(1).click()
    page.get_by_text("Person 2 of 2").wait_for()
    second = json.loads(downloaded(page, "Everything (JSON)"))
    assert (first["track"], second["track"]) == (0, 1)
    assert first["frames"][0]["box_x"] != second["frames"][0]["box_x"]


def test_the_own_neutral_marks_what_it_changed(visit):
    page = visit()
    page.locator("button.gallery-item").nth(0).click()
    player(page).wait_for()
    page.get_by_label("Calibrate by the quietest").check()
    analysed(page)
    assert page.locator(".mma-bar u").count() == 7
    assert page.get_by_text("The dashed mark").is_visible()


def test_a_recording_of_the_camera_is_analysed_though_its_header_has_no_length(visit):
    page = visit()
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="start recording").click()
    page.wait_for_timeout(3000)
    page.get_by_text("Stop", exact=True).click()
    player(page).wait_for()
    analysed(page)
    assert sorted(bars(page)) == sorted(REACTIONS)
    result = json.loads(downloaded(page, "Everything (JSON)"))
    assert 1 < result["duration_s"] < 10


def test_the_live_chart_follows_the_camera_within_a_second_and_leaving_frees_the_reader(
    visit, space_app
):
    readers, faces = instances(LiveReader), faces_in_memory()
    page = visit()
    page.get_by_role("tab", name="Live").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="capture photo").click()
    page.locator(".mma-bar:visible").first.wait_for()
    page.get_by_text("No face in this frame").wait_for()
    page.evaluate(LAG)
    page.wait_for_timeout(9000)
    seen = page.evaluate("window.seen")
    found = lags(seen)
    assert len(found) >= 3, seen
    assert statistics.median(found) < 1.0, seen
    assert list(bars(page)) == list(REACTIONS)  # an order that stays
    assert instances(LiveReader) == readers + 1
    page.context.close()
    wait_for(lambda: instances(LiveReader) <= readers and faces_in_memory() <= faces)


def instances(kind):
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


def faces_in_memory():
    """Containers of this process, the server's, that hold a page with pictures of a face."""
    held = (
        each.values() if type(each) is dict else each
        for each in gc.get_objects()
        if type(each) in (dict, list)
    )
    return sum(
        isinstance(value, str) and "data:image/jpeg;base64" in value
        for value in itertools.chain(*map(list, held))
    )


def wait_for(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.5)


def test_closing_the_page_drops_the_results_from_memory(visit, clips):
    predictions, faces = (
        instances(VideoPrediction),
        faces_in_memory(),
    )  # other tests of this process may have left some
    page = analysed(visit(), clips / "face.mp4")
    assert instances(VideoPrediction) == predictions + 1
    assert faces_in_memory() > faces
    page.context.close()
    wait_for(lambda: instances(VideoPrediction) <= predictions and faces_in_memory() <= faces)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("text.mp4", "cannot be read as a video: is text"),
        ("nobody.mp4", "No face"),
        ("long.mp4", "is 130 s long; here 120 s are accepted"),
    ],
)
def test_what_cannot_be_analysed_is_answered_in_words(visit, clips, file, words):
    page = visit()
    page.set_input_files("input[type=file]", str(clips / file))
    player(page).wait_for(state="attached")
    page.get_by_role("button", name="Analyse").click()
    page.get_by_text(words).wait_for()
    assert "Traceback" not in toast(page)
    assert page.locator(".mma-bar:visible").count() == 0


def test_too_large_a_file_is_answered_in_words(visit, clips):
    page = visit()
    visit.allowed += ["413", "maximum allowed size"]
    page.set_input_files("input[type=file]", str(clips / "large.mp4"))
    page.get_by_text("maximum allowed size").first.wait_for()


def test_without_a_clip_the_page_asks_for_one(visit):
    page = visit()
    page.get_by_role("button", name="Analyse").click()
    page.get_by_text("Upload or record a clip first.").wait_for()


def test_two_visitors_at_once_get_each_their_own_result(visit, clips):
    pages = [visit(), visit()]
    for page, clip in zip(pages, ("face.mp4", "still.mp4"), strict=True):
        page.set_input_files("input[type=file]", str(clips / clip))
        player(page).wait_for()
    for page in pages:
        page.get_by_role("button", name="Analyse").click()
    for page, words in zip(pages, ("4 of 4 frames, 2.0 s", "6 of 6 frames, 3.0 s"), strict=True):
        page.get_by_text(words).wait_for()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_shows_everything_in_its_width_and_in_its_colours(visit, colours):
    page = visit(**PHONE, color_scheme=colours)
    page.locator("button.gallery-item").nth(2).click()
    player(page).wait_for()
    analysed(page)
    assert overflow(page) <= 0
    page.get_by_role("tab", name="About").click()
    page.get_by_text("What it cannot know").wait_for()
    assert overflow(page) <= 0
    page.get_by_role("tab", name="Live").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="capture photo").click()
    page.locator(".mma-bar:visible").first.wait_for()
    assert overflow(page) <= 0
    assert page.locator(".mma-bar:visible").first.bounding_box()["width"] > 150
    page.get_by_role("tab", name="A clip").click()
    assert contrast(page, ".mma-row > span") >= 4.5  # WCAG AA
    assert contrast(page, ".mma-notes p") >= 4.5
    assert cut_off(page) == []


def contrast(page, selector):
    """Of a text with the nearest background that is painted, as WCAG 2 defines it."""
    return page.locator(f"{selector}:visible").first.evaluate(
        """element => {
          const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
          const light = ([red, green, blue]) => [red, green, blue].map(value => value / 255).map(
            value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
          ).reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
          let behind = element;
          const clear = colour => numbers(colour)[3] === 0;
          while (behind.parentElement && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
          const pair = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
          const [high, low] = pair.map(colour => light(numbers(colour))).sort((one, other) => other - one);
          return (high + 0.05) / (low + 0.05);
        }"""
    )


def cut_off(page):
    """Names of reactions that do not fit beside their bars."""
    return page.locator(".mma-row:not(.mma-tight) > span:visible").evaluate_all(
        "spans => spans.filter(span => span.scrollWidth > span.clientWidth + 1).map(span => span.innerText)"
    )
