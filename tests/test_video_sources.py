"""Whatever is handed in as a video becomes a file, which is gone afterwards; what cannot is named in words."""

import asyncio
import io
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mma_mrnnet.video.reading import VideoError, read_frames
from mma_mrnnet.video.sources import local_file, open_video
from mma_mrnnet.video.writing import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    grey = np.full((16, 16, 3), 128, np.uint8)
    return write_video(tmp_path_factory.mktemp("clip") / "grey.mp4", [grey] * 4, 4)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files go to, to see what stays there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Answer(BaseHTTPRequestHandler):
    content = b""

    def do_GET(self):
        if self.path == "/drip.mp4":
            self.drip()
        elif self.path == "/slow-headers.mp4":
            self.drip_headers()
        elif self.path.startswith("/round"):
            time.sleep(0.1)
            self.answer(302, Location=f"/round{time.monotonic()}")
        elif self.path.startswith("/clip"):
            self.answer(200, self.content, announced="unannounced" not in self.path)
        elif self.path in TO:
            self.answer(302, Location=TO[self.path])
        else:
            self.answer(404)

    def answer(self, status, content=b"", announced=True, **headers):
        self.send_response(status)
        for name, value in {
            **headers,
            **({"Content-Length": len(content)} if announced else {}),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def drip(self):
        self.answer(200, announced=False)
        for _ in range(100):
            self.wfile.write(b"\0")
            time.sleep(0.05)

    def drip_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            self.wfile.write(b"X-%d: 1\r\n" % number)
            time.sleep(0.05)

    def log_message(self, *words):
        pass


TO = {"/moved.mp4": "/clip.mp4", "/secret-place": "file:///etc/hostname"}


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients that hang up are what is tested


@pytest.fixture(scope="module")
def server(clip):
    """The address of a server that has the clip, and a few ways of failing."""
    Answer.content = clip.read_bytes()
    with Server(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def frames_in(path):
    return sum(1 for _ in read_frames(path))


# What is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, lambda path: {"path": str(path), "bytes": None}])
def test_a_file_stays_where_it_is_under_its_own_name(kind, clip, temporary):
    with local_file(kind(clip)) as local:
        assert (local.path, local.name) == (clip, str(clip))
        assert list(temporary.iterdir()) == []
    assert clip.is_file()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (lambda content: content, "video of {size} bytes"),
        (bytearray, "video of {size} bytes"),
        (memoryview, "video of {size} bytes"),
        (io.BytesIO, "file object"),
        (lambda content: {"path": None, "bytes": content}, "video of {size} bytes"),
        (lambda content: {"path": "far/away.mkv", "bytes": content}, "far/away.mkv"),
    ],
)
def test_contents_become_a_file_that_is_gone_afterwards(kind, name, clip, temporary):
    content = clip.read_bytes()
    with local_file(kind(content)) as local:
        assert local.path.read_bytes() == content
        assert local.name == name.format(size=f"{len(content):,}")
        assert temporary in local.path.parents
    assert list(temporary.iterdir()) == []


def test_an_open_file_is_read_and_left_open(clip, temporary):
    with clip.open("rb") as file:
        with local_file(file) as local:
            assert local.name == str(clip)
            assert frames_in(local.path) == 4
        assert not file.closed


@pytest.mark.parametrize(
    "place", ["/clip.mp4?signature=secret", "/clip-unannounced.mp4", "/moved.mp4"]
)
def test_a_url_is_fetched_and_named_without_its_query(place, server, clip, temporary):
    with local_file(server + place) as local:
        assert local.path.read_bytes() == clip.read_bytes()
        assert local.path.suffix == ".mp4"
        assert local.name == server + place.split("?")[0]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_file_is_gone_too_where_the_work_fails(error, clip, temporary):
    with pytest.raises(error), local_file(clip.read_bytes()):
        assert len(list(temporary.iterdir())) == 1
        raise error
    assert list(temporary.iterdir()) == []


def test_an_error_inside_names_what_was_handed_in(temporary):
    said = "^video of 5 bytes: is text, not a video"
    with pytest.raises(VideoError, match=said) as caught, local_file(b"hello") as local:
        frames_in(local.path)
    assert str(temporary) not in str(caught.value)


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "cannot be read from builtins.NoneType; accepted are a path, a URL"),
        (3, "cannot be read from builtins.int"),
        ("", "path is empty"),
        (np.zeros((2, 4, 4, 3), np.uint8), "numpy.ndarray; accepted are a path.*with fps="),
        ({"video": "clip.mp4"}, r'no "path" and no "bytes" \(keys: video\)'),
        ({"path": None, "bytes": None}, 'no "path" and no "bytes"'),
        ({"path": "clip.mp4", "bytes": 3}, "builtins.int"),
        ("rtsp://camera/clip.mp4", "^rtsp://camera/clip.mp4: no protocol that can be read"),
        ("x" * 5000, "^a text of 5,000 characters is no path; accepted are"),
        ("ftyp\0isom", "^a text of 9 characters is no path"),
        (io.StringIO("text"), 'gives str, not bytes; open a video file with "rb"'),
        ("http://127.0.0.1:port/clip.mp4", "not a URL"),
    ],
)
def test_what_is_no_video_is_refused_in_words(given, said, temporary):
    with pytest.raises(VideoError, match=said), local_file(given):
        raise AssertionError("it was taken")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "settings", "said"),
    [
        ("/nothing.mp4?signature=secret", {}, "the server answered 404 Not Found"),
        (
            "/clip.mp4",
            {"max_bytes": 100},
            "larger than 100 bytes, .* are announced; give a larger max_bytes",
        ),
        (
            "/clip-unannounced.mp4",
            {"max_bytes": 100},
            "larger than 100 bytes; give a larger max_bytes",
        ),
        ("/drip.mp4", {"timeout": 0.2}, r"not fetched within 0.2 s \(\d+ bytes came\)"),
        ("/slow-headers.mp4", {"timeout": 0.3}, r"not fetched within 0.3 s \(0 bytes came\)"),
        ("/round", {"timeout": 0.3}, r"not fetched within 0.3 s"),
        ("/secret-place", {}, "cannot be fetched: UnsupportedProtocol"),
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused_in_words(place, settings, said, server, temporary):
    started = time.monotonic()
    with pytest.raises(VideoError, match=said) as caught, local_file(server + place, **settings):
        raise AssertionError("it was taken")
    assert time.monotonic() - started < 4  # the dripping server would go on for five seconds
    assert str(caught.value).startswith(server + place.split("?")[0])
    assert "secret" not in str(caught.value).replace("/secret-place", "")
    assert list(temporary.iterdir()) == []


def test_nobody_listening_is_said_without_the_password():
    with (
        pytest.raises(VideoError, match="cannot be fetched") as caught,
        local_file("http://me:pass@127.0.0.1:9/a"),
    ):
        raise AssertionError("it was taken")
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("text", 'grey.mp4: is open as text; open a video file with "rb"'),
        ("closed", "grey.mp4: cannot be read: read of closed file"),
        ("failing", "file object: cannot be read: the disk is gone"),
    ],
)
def test_a_file_object_that_cannot_be_read_is_a_video_error(how, said, clip, temporary):
    class Failing:
        def read(self, size):
            raise OSError("the disk is gone")

    opened = (
        clip.open(encoding="utf-8")
        if how == "text"
        else Failing()
        if how == "failing"
        else clip.open("rb")
    )
    with pytest.raises(VideoError, match=said):
        if how == "closed":
            opened.close()
        with local_file(opened):
            raise AssertionError("it was taken")
    if how == "text":
        opened.close()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "place", [f"http://{'a' * 70}.example/a.mp4", "http://127.0.0.1:9/\udcff.mp4"]
)
def test_a_url_that_has_no_encoding_is_a_video_error(place, temporary):
    with pytest.raises(VideoError, match=r"fetched: (Unicode|Connect)"), local_file(place):
        raise AssertionError("it was taken")
    assert list(temporary.iterdir()) == []


def test_a_file_object_without_end_is_cut_off(temporary):
    said = "/dev/zero: larger than 5,000,000 bytes"
    with (
        Path("/dev/zero").open("rb") as endless,
        pytest.raises(VideoError, match=said),
        local_file(endless, max_bytes=5_000_000),
    ):
        raise AssertionError("it was taken")
    assert list(temporary.iterdir()) == []


def test_an_entry_with_bytes_is_named_without_what_may_be_secret_in_its_url():
    entry = {"path": "https://me:pw@h/x.mp4?sig=SECRET", "bytes": b"no video"}
    with (
        pytest.raises(VideoError, match=r"^https://h/x\.mp4: is no video$"),
        local_file(entry) as video,
    ):
        raise VideoError(f"{video.path}: is no video")


def test_an_entry_whose_bytes_are_text_is_refused():
    with (
        pytest.raises(VideoError, match='"bytes" holds str'),
        local_file({"path": "x.mp4", "bytes": "abc"}),
    ):
        pass


def test_an_address_of_six_keeps_its_brackets():
    with (
        pytest.raises(VideoError, match=r"^http://\[::1\]:9/x\.mp4: "),
        local_file("http://[::1]:9/x.mp4", timeout=2),
    ):
        pass


# The one door ------------------------------------------------------------------------------------


def test_home_and_file_urls_are_paths(clip, monkeypatch):
    monkeypatch.setenv("HOME", str(clip.parent))
    for given in ("~/grey.mp4", Path("~/grey.mp4"), clip.as_uri(), f"file://{clip}"):
        with local_file(given) as local:
            assert local.path == clip
            assert local.name == str(given)


def test_whatever_fsspec_opens_is_copied(clip, temporary, tmp_path):
    import fsspec

    archive = tmp_path / "clips.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(clip, "inner/grey.mp4")
    fsspec.filesystem("memory").pipe("/grey.mp4", clip.read_bytes())
    for url in (f"zip://inner/grey.mp4::{archive}", "memory://grey.mp4"):
        with local_file(url) as local:
            assert local.name == url
            assert local.path.suffix == ".mp4"
            assert local.path.read_bytes() == clip.read_bytes()
    missing = f"zip://nothing.mp4::{archive}"
    with (
        pytest.raises(VideoError, match=r"^zip://nothing.mp4.*cannot be fetched: ") as caught,
        local_file(missing),
    ):
        raise AssertionError("it was taken")
    assert "\n" not in str(caught.value)
    with (
        pytest.raises(VideoError, match="larger than 10 bytes"),
        local_file("memory://grey.mp4", max_bytes=10),
    ):
        raise AssertionError("it was taken")
    assert list(temporary.iterdir()) == []


def test_keys_in_a_url_of_any_protocol_are_not_said():
    with (
        pytest.raises(VideoError, match=r"^s3x://bucket/clip\.mp4: ") as caught,
        local_file("s3x://KEY:SECRET@bucket/clip.mp4?token=T0KEN"),
    ):
        raise AssertionError("it was taken")
    assert not {"SECRET", "T0KEN"} & set(str(caught.value).replace("@", " ").split())


def test_a_decoded_entry_of_datasets_is_read_from_what_it_was_decoded_from(clip):
    class VideoDecoder:
        pass

    decoded = VideoDecoder()
    with (
        pytest.raises(VideoError, match="of a decoder only one that `datasets` made"),
        local_file(decoded),
    ):
        raise AssertionError("it was taken")
    decoded._hf_encoded = {"path": "far/away.mp4", "bytes": clip.read_bytes()}
    with local_file(decoded) as local:
        assert local.name == "far/away.mp4"
        assert frames_in(local.path) == 4


@pytest.mark.parametrize(
    "kind",
    [
        np.asarray,
        torch.from_numpy,
        lambda array: torch.from_numpy(array).permute(0, 3, 1, 2),
        list,
        lambda array: [Image.fromarray(frame) for frame in array],
        lambda array: tuple(Image.fromarray(frame) for frame in array),
    ],
)
def test_frames_in_memory_are_read_at_the_rate_that_is_given(kind, temporary):
    array = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)
    with open_video(kind(array), fps=4) as video:
        assert video.name == "video of 6 frames"
        reader = video.read(2.0, None)
        frames = list(reader)
    assert [frame.time_s for frame in frames] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert [frame.due[0] for frame in frames] == [True, False, True, False, True, False]
    assert reader.duration_s == 1.5
    assert reader.warning is None
    assert all(np.array_equal(frame.image, array[frame.index]) for frame in frames)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), "give fps=, their frames per second"),
        (np.zeros((2, 4, 4, 3), np.float32), r"uint8 RGB in 0..255; got float32 \(2, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), r"must be \(T, H, W, 3\) uint8 .* got uint8 \(4, 4, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), "holds no frames"),
        ([], "an empty list holds no frames"),
        ([Image.new("RGB", (4, 4)), "a.png"], "a list of frames holds str beside Image"),
        ([np.zeros((4, 4), np.uint8)], r"must be \(H, W, 3\) uint8 RGB"),
        (["a.mp4"], "cannot be read from builtins.list"),
    ],
)
def test_frames_that_are_none_are_refused_in_one_line(given, said):
    fps = None if "give fps" in said else 4
    with pytest.raises(VideoError, match=said) as caught, open_video(given, fps):
        raise AssertionError("it was taken")
    assert "\n" not in str(caught.value)


def test_a_rate_that_is_none_is_refused_for_frames_in_memory():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="fps must be a finite number"), open_video(frames, fps=0):
        raise AssertionError("it was taken")


def test_a_url_is_fetched_inside_a_running_event_loop(server, clip):
    async def inside():
        with local_file(f"{server}/clip.mp4") as local:
            return local.path.read_bytes()

    assert asyncio.run(inside()) == clip.read_bytes()


def test_an_object_whose_read_is_another_one_is_refused_in_one_line(clip):
    cv2 = pytest.importorskip("cv2")
    with (
        pytest.raises(VideoError, match=r"^file object: ") as caught,
        local_file(cv2.VideoCapture(str(clip))),
    ):
        raise AssertionError("it was taken")
    assert "\n" not in str(caught.value)
