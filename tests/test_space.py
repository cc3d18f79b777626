"""The Space's server, called through its API: what it answers, what it refuses, what it leaves behind."""

import base64
import json
import os
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import SpaceCard
from PIL import Image

import mma_mrnnet
from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.video.reading import measure_video
from mma_mrnnet.video.writing import write_video

gradio = pytest.importorskip("gradio", reason="the Space needs gradio (the space extra)")
gradio_client = pytest.importorskip("gradio_client")

SPACE = Path(__file__).resolve().parents[1] / "spaces_demo"


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    return write_video(
        tmp_path_factory.mktemp("clip") / "face.mp4", camera_move(astronaut(), 50), 25
    )


@pytest.fixture
def served(space_app, tmp_path, monkeypatch):
    """Starts the page with a folder of its own for all temporary files; gives its address, folder and Blocks."""
    started = []

    def serve(**settings):
        folder = tmp_path / "temporary"
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        blocks = space_app.build(**settings)
        _, url, _ = blocks.launch(
            prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **space_app.LAUNCH
        )
        started.append(blocks)
        return url, folder, blocks

    yield serve
    for blocks in started:
        blocks.close()


def visitors_files(folder):
    """Files below a folder that are neither the examples nor part of the client's own downloads."""
    examples = {path.name for path in (SPACE / "examples").iterdir()}
    return [
        path for path in Path(folder).rglob("*") if path.is_file() and path.name not in examples
    ]


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not (result := holds()) and time.monotonic() < end:
        time.sleep(0.2)
    return result


@pytest.mark.slow
def test_the_api_answers_with_all_numbers_of_everybody(served, face, space_app):
    url, folder, _ = served()
    client = gradio_client.Client(url, verbose=False, download_files=False)
    (person,) = client.predict(gradio_client.handle_file(str(face)), False, api_name="/analyse")
    assert list(person["intensities"]) == list(REACTIONS)
    assert (person["frames_sampled"], person["frames_with_face"], person["duration_s"]) == (
        4,
        4,
        2.0,
    )
    assert len(person["frames"]) == len(person["moments"]) == len(person["running"]) == 4
    two = client.predict(
        gradio_client.handle_file(str(SPACE / "examples" / "two_people.mp4")),
        True,
        api_name="/analyse",
    )
    assert [each["track"] for each in two] == [0, 1]
    # Gradio holds the uploads; of the app's own files none is left.
    assert {path.relative_to(folder).parts[0] for path in visitors_files(folder)} <= {"gradio"}


@pytest.mark.slow
def test_what_is_no_video_is_answered_in_words_and_not_with_a_trace(served, tmp_path):
    url, _, _ = served()
    client = gradio_client.Client(url, verbose=False)
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    for clip, words in (
        (text, "cannot be read as a video"),
        (None, "Upload or record a clip first"),
    ):
        with pytest.raises(Exception, match=words) as caught:
            client.predict(
                clip and gradio_client.handle_file(str(clip)), False, api_name="/analyse"
            )
        assert "Traceback" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.slow
def test_uploads_results_and_memory_are_gone_after_their_time(served, space_app, face):
    space_app.default_checkpoint()  # loaded before the clock starts
    url, folder, blocks = served(kept_s=6, check_every_s=0.5)
    client = gradio_client.Client(url, verbose=False)
    client.predict(gradio_client.handle_file(str(face)), False, api_name="/analyse")
    _through_the_page(blocks, url, face)
    kept = {path.name for path in visitors_files(folder)}
    assert {
        "face.mp4",
        "frames.csv",
        "result.json",
    } <= kept  # so that there is something to be deleted
    assert wait_until(lambda: not visitors_files(folder)), visitors_files(folder)
    assert wait_until(lambda: not blocks.state_holder.session_data), "gradio still holds a visit"


def _through_the_page(blocks, url, clip):
    """What the page's button does, by a visitor whose browser then falls silent: no heartbeat, no goodbye."""
    import httpx

    number = next(
        key
        for key, function in blocks.fns.items()
        if getattr(function.fn, "__name__", "") == "analyse"
    )
    with httpx.Client(base_url=url, timeout=60) as http:
        (path,) = http.post(
            "gradio_api/upload", files={"files": (clip.name, clip.read_bytes())}
        ).json()
        data = [{"video": None, "path": path, "meta": {"_type": "gradio.FileData"}}, False]
        data[0].pop("video")
        job = {"data": data, "fn_index": number, "session_hash": "silent"}
        http.post("gradio_api/queue/join", json=job).raise_for_status()
        with http.stream(
            "GET", "gradio_api/queue/data", params={"session_hash": "silent"}
        ) as messages:
            said = next(line for line in messages.iter_lines() if "process_completed" in line)
    assert '"success":true' in said.replace(" ", ""), said[:500]


def test_a_clip_whose_time_was_over_is_asked_for_again(space_app, tmp_path):
    with pytest.raises(gradio.Error, match="deleted in the meantime"):
        space_app.return_numbers(str(tmp_path / "gone.mp4"), False, None)


@pytest.mark.slow
def test_a_full_queue_says_so_and_loses_nobody_who_is_in_it(served, space_app, face, monkeypatch):
    monkeypatch.setattr(space_app, "WAITING", 1)
    predicted = space_app.predict_people

    def slowly(*args, **options):
        time.sleep(1.5)
        return predicted(*args, **options)

    monkeypatch.setattr(space_app, "predict_people", slowly)
    url, _, _ = served()
    client = gradio_client.Client(url, verbose=False)
    jobs = [
        client.submit(gradio_client.handle_file(str(face)), False, api_name="/analyse")
        for _ in range(5)
    ]
    answers, refused = [], []
    for job in jobs:
        try:
            answers.append(job.result(timeout=60))
        except Exception as error:  # the client wraps the server's words in types of its own
            refused.append(str(error))
    assert answers, refused
    assert refused
    assert all("ueue is full" in words for words in refused), refused
    assert all(answer[0]["frames_with_face"] == 4 for answer in answers)


def test_the_real_times_keep_the_promise_of_ten_minutes(space_app):
    assert space_app.KEPT_S + space_app.CHECK_S < 600
    blocks = space_app.build()
    assert blocks.delete_cache == (space_app.CHECK_S, space_app.KEPT_S)
    states = [block for block in blocks.blocks.values() if isinstance(block, gradio.State)]
    assert {state.time_to_live for state in states} == {space_app.KEPT_S}
    assert all(state.delete_callback.__name__ == "expired" for state in states)


def test_a_camera_frame_that_is_not_due_leaves_the_chart_alone_and_no_face_is_said(
    space_app, monkeypatch
):
    request, wall = (
        type("Request", (), {"session_hash": "one"})(),
        np.zeros((120, 160, 3), np.uint8),
    )
    photo = astronaut()
    times = iter((10.0, 10.2, 10.5, 11.0))
    monkeypatch.setattr(space_app.time, "monotonic", lambda: next(times))
    live, chart = space_app.watch(wall, None, request)
    assert "No face yet." in chart
    live, chart = space_app.watch(photo, live, request)
    assert isinstance(chart, dict)  # 0.2 s after the first: gradio's own sign for no change
    live, chart = space_app.watch(photo, live, request)
    assert chart.count('class="mma-bar"') == 7
    assert "AU12" in chart
    live, chart = space_app.watch(wall, live, request)
    assert "No face in this frame." in chart
    assert live.reader.window_s > 0
    assert space_app.watch(None, live, request)[0] is live


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LONGEST_S", 1, "is 2 s long; here 1 s are accepted"),
        ("MOST_FRAMES", 49, "has 50 frames; here 49 are accepted"),
        ("LARGEST_FRAME", 640 * 479, "has frames of 640 x 480"),
        ("LARGEST_MB", 0.001, "is larger than 0.001 MB"),
    ],
)
def test_a_clip_beyond_any_limit_is_refused_before_it_is_read(
    space_app, face, monkeypatch, name, value, words
):
    monkeypatch.setattr(space_app, name, value)
    with pytest.raises(gradio.Error, match=words):
        space_app.refuse_large(str(face))


def test_a_person_without_a_result_has_numbers_too_and_a_place_in_the_gallery(
    space_app, face, tmp_path
):
    good = space_app.predict_clip(str(face), False)[0]
    nothing = dict.fromkeys(good.intensities, float("nan"))
    other = replace(good, track=1, error="no stretch", intensities=nothing, strip=[])
    numbers = json.loads(json.dumps(space_app.as_numbers(other), allow_nan=False))
    assert numbers["intensities"] == dict.fromkeys(nothing)
    gallery = space_app.show_person([other, good], 0, tmp_path)[3]
    assert len(gallery.value) == 2  # what is clicked on is a place in this list


def test_one_person_without_a_neutral_does_not_cost_the_others_result(space_app, face, monkeypatch):
    good = space_app.predict_clip(str(face), False)[0]
    lost = replace(good, error="no stretch", people=2)
    monkeypatch.setattr(
        space_app, "predict_people", lambda *_, **__: [lost, replace(good, track=1, people=2)]
    )
    assert [each.error for each in space_app.predict_clip(str(face), True)] == ["no stretch", None]
    monkeypatch.setattr(space_app, "predict_people", lambda *_, **__: [lost])
    with pytest.raises(gradio.Error, match="No stretch"):
        space_app.predict_clip(str(face), True)


def test_the_page_says_what_the_model_learnt_from(space_app):
    text = space_app.TEXT + space_app.ABOUT
    for words in (
        "simulator",
        "pseudo-labels",
        "relative within the clip",
        "Nobody was recorded",
        "within ten minutes",
    ):
        assert words in " ".join(text.split())


def test_the_folder_is_a_space_of_the_versions_that_are_tested_here(space_app):
    card = SpaceCard.load(SPACE / "README.md")
    assert (card.data.sdk, card.data.sdk_version) == ("gradio", gradio.__version__)
    assert card.data.python_version == "3.11"
    assert card.data.suggested_hardware
    assert (SPACE / card.data.app_file).is_file()
    assert (
        SPACE / "requirements.txt"
    ).read_text() == f"mma-mrnnet[space]=={mma_mrnnet.__version__}\n"


def test_the_pages_limits_are_those_of_the_app(space_app):
    page = (SPACE.parent / "docs" / "reports.md").read_text("utf-8")
    for words in (
        f"| {space_app.LARGEST_MB} MB |",
        f"| {space_app.LONGEST_S} s,",
        f"| {space_app.MOST_FRAMES} |",
        f"one, and {space_app.WAITING} waiting",
        f"| {space_app.LIVE_VISITORS}, each for {space_app.LIVE_MINUTES} minutes |",
    ):
        assert words in page
    assert (space_app.KEPT_S, space_app.CHECK_S) == (
        9 * 60,
        30,
    )  # "nine minutes", "every 30 seconds"


def test_the_examples_are_small_and_there():
    examples = sorted((SPACE / "examples").glob("*.mp4"))
    assert [path.stem for path in examples] == ["a_smile", "face_leaves", "two_people"]
    for path in examples:
        assert path.stat().st_size < 400_000
        assert measure_video(path).duration_s == pytest.approx(8, abs=0.1)


def test_temporary_files_of_a_visitor_who_leaves_in_between_are_gone(
    space_app, face, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = space_app.analyse(str(face), False, type("Request", (), {"session_hash": "one"})())
    next(answer)
    assert len(list(tmp_path.glob("*/frames.csv"))) == 1
    answer.close()  # as when the event is cancelled between the answer and its end
    assert list(tmp_path.glob("*/frames.csv")) == []


# ---- what gradio itself leaves behind -----------------------------------------------------------


def _open_upload(url, name, content):
    """Begin an upload of a clip of 10 MB and send a part of it; return the socket."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    head = (
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n'
        b"Content-Type: video/mp4\r\n\r\n" % name
    )
    line = socket.create_connection((host, int(port)), timeout=10)
    line.sendall(
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n"
        b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n" + head + content
    )
    return line


@pytest.mark.slow
def test_an_upload_that_breaks_off_is_deleted_and_the_examples_stay(served):
    url, folder, _ = served(kept_s=2, check_every_s=0.5)
    examples = {path.name for path in folder.rglob("*.mp4")}
    assert examples == {path.name for path in (SPACE / "examples").iterdir()}
    line = _open_upload(url, b"clip.mp4", b"\0" * 100_000)
    assert wait_until(lambda: visitors_files(folder))
    line.close()
    assert wait_until(lambda: not visitors_files(folder)), visitors_files(folder)
    assert {path.name for path in folder.rglob("*.mp4")} == examples


@pytest.mark.slow
def test_an_upload_whose_name_is_no_files_is_deleted(served):
    import httpx

    url, folder, _ = served(kept_s=2, check_every_s=0.5)
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a\0b.mp4"\r\n\r\n'
        + b"\1" * 50_000
        + b"\r\n--edge--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    httpx.post(f"{url}gradio_api/upload", content=body, headers=kind, timeout=20)
    assert wait_until(lambda: not visitors_files(folder)), visitors_files(folder)


@pytest.mark.slow
def test_what_an_earlier_run_left_is_deleted_at_the_start(served, tmp_path):
    left = tmp_path / "temporary" / "gradio" / "tmpabc"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a clip")
    os.utime(left, (0, 0))
    served()
    assert wait_until(lambda: not left.exists())


def test_files_together_stay_below_the_cap_and_the_oldest_go_first(
    space_app, tmp_path, monkeypatch
):
    monkeypatch.setattr(space_app, "MOST_STORED_MB", 0.003)
    now = time.time()
    for number in range(5):
        path = tmp_path / f"visit{number}" / "clip.mp4"
        path.parent.mkdir()
        path.write_bytes(b"\0" * 1000)
        os.utime(path, (now - 100 + number, now - 100 + number))
    needed = tmp_path / "visit0" / "clip.mp4"
    space_app.sweep(tmp_path, 1000, {str(needed)})
    assert sorted(path.parent.name for path in tmp_path.rglob("*.mp4")) == [
        "visit0",
        *("visit2", "visit3", "visit4"),
    ]
    assert not (tmp_path / "visit1").exists()
    space_app.sweep(tmp_path, 97.5, {str(needed)})
    assert [path.parent.name for path in sorted(tmp_path.rglob("*.mp4"))] == [
        "visit0",
        *("visit3", "visit4"),
    ]


@pytest.mark.parametrize("way", ["path", "data"])
def test_a_camera_frame_of_too_many_pixels_is_refused_before_it_is_decoded(
    space_app, tmp_path, way, monkeypatch
):
    path = tmp_path / "frame.png"
    Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 100_000
    content = base64.b64encode(path.read_bytes()).decode()
    given = {"path": str(path)} if way == "path" else {"url": f"data:image/png;base64,{content}"}
    camera = space_app.make_camera()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(gradio.Error, match="This picture is 13000 x 13000; here up to"):
        camera.preprocess(gradio.data_classes.ImageData(**given))


def test_a_camera_frame_of_usual_size_is_read(space_app, tmp_path):
    path = tmp_path / "frame.png"
    Image.new("RGB", (640, 480), (1, 2, 3)).save(path)
    camera = space_app.make_camera()
    image = camera.preprocess(gradio.data_classes.ImageData(path=str(path)))
    assert image.shape == (480, 640, 3)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(gradio.Error, match="no picture that can be read"):
        camera.preprocess(gradio.data_classes.ImageData(path=str(tmp_path / "text.png")))


def test_a_clip_that_grows_is_refused_by_the_size_of_its_frames(space_app, tmp_path):
    grows = SPACE.parent.parent / "shared" / "data" / "faulty" / "grows.ts"
    if not grows.is_file():
        pytest.skip("the shared data is not here")
    with pytest.raises(gradio.Error, match="16000 x 16000"):
        space_app.predict_clip(str(grows), False)
