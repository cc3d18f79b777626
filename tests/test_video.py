"""What `video/reading.py` promises: which frames come, when, which way up, and what a broken file says."""

import logging
import os
import pickle
import struct
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mma_mrnnet.video import reading as video
from mma_mrnnet.video.reading import FrameClock, VideoError, measure_video, read_frames
from mma_mrnnet.video.writing import write_video

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips"
COLOURS = {"R": (220, 30, 30), "G": (30, 200, 30), "B": (30, 30, 220), "W": (235, 235, 235)}
INTRA = {"g": "1", "bf": "0"}  # every packet is one whole picture, in presentation order


def four_corners(height=32, width=64):
    """R G above B W, a quarter each."""
    image = np.empty((height, width, 3), np.uint8)
    rows, columns = slice(None, height // 2), slice(None, width // 2)
    image[:, :] = COLOURS["W"]
    image[rows, :] = COLOURS["G"]
    image[:, columns] = COLOURS["B"]
    image[rows, columns] = COLOURS["R"]
    return image


def corners_of(image):
    """The letters of the colours at a quarter and three quarters of the height and width, row by row."""
    height, width = image.shape[:2]
    points = [image[y, x] for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    distances = [
        [np.abs(np.subtract(point, c, dtype=float)).max() for c in COLOURS.values()]
        for point in points
    ]
    assert max(map(min, distances)) < 25
    return "".join("RGBW"[np.argmin(row)] for row in distances)


def numbered(count, height=32, width=48):
    """Grey images, each 4 levels lighter than the one before, so that a picture tells its number."""
    return [np.full((height, width, 3), 4 * number, np.uint8) for number in range(count)]


def write(
    path, images, codec="libx264", pixels="yuv420p", rate=30, *, stamps_ms=None, matrix=None, aspect=None,
    options=None, container_options=None, form=None,
):  # fmt: skip
    images = list(images)
    with av.open(str(path), "w", format=form, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000) if stamps_ms else Fraction(1, rate)
        if matrix:
            stream.set_display_matrix(matrix)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts = stamps_ms[number] if stamps_ms else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path, codec, cover=False):
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=8000, layout="mono")
        picture = container.add_stream("png", rate=1) if cover else None
        if cover:
            picture.width = picture.height = 32
            picture.pix_fmt = "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(
                picture.encode(av.VideoFrame.from_ndarray(four_corners(32, 32), format="rgb24"))
            )
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 8000, 0
        resampler = av.AudioResampler(sound.codec_context.format, "mono", 8000)
        for resampled in resampler.resample(frame):
            container.mux(sound.encode(resampled))
        container.mux(sound.encode(None))
    return path


def packet_places(path):
    """(offset in the file, bytes) of each video packet."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def intra_clip(path, count):
    """An mp4 of `count` single-packet pictures, header first, at 30 a second."""
    front = {"movflags": "faststart"}
    return write(path, numbered(count), options=INTRA, container_options=front)


def indices(frames, position=0):
    return [frame.index for frame in frames if frame.due[position]]


# ---- which frames, and when


def test_two_frames_a_second_of_a_30_fps_clip_are_frames_0_15_30_45(tmp_path):
    frames = list(read_frames(write(tmp_path / "clip.mp4", numbered(60)), 2.0))
    assert indices(frames) == [0, 15, 30, 45]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.5, 1.0, 1.5])
    # The pictures are the right ones too: number n is grey 4 n.
    assert [frame.image.mean() for frame in frames] == pytest.approx([0, 60, 120, 180], abs=3)


def test_without_a_rate_every_frame_comes_and_the_length_is_known(tmp_path):
    reader = read_frames(write(tmp_path / "clip.mp4", numbered(45)))
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(45))
    assert all(frame.due == (True,) for frame in frames)
    assert (reader.frames_decoded, reader.warning) == (45, None)
    assert reader.duration_s == pytest.approx(1.5)  # 45 / 30


def test_a_reader_can_be_read_twice(tmp_path):
    reader = read_frames(write(tmp_path / "clip.mp4", numbered(31)), 2.0)
    assert indices(reader) == indices(reader) == [0, 15, 30]
    assert reader.frames_decoded == 31


def test_two_rates_at_once_flag_each_frame_for_the_rates_that_want_it(tmp_path):
    # 30 fps: 2 a second wants 0, 15, 30; 5 a second wants 0, 6, 12, 18, 24, 30.
    frames = list(read_frames(write(tmp_path / "clip.mp4", numbered(31)), 2.0, 5.0))
    assert [frame.index for frame in frames] == [0, 6, 12, 15, 18, 24, 30]
    assert indices(frames, 0) == [0, 15, 30]
    assert indices(frames, 1) == [0, 6, 12, 18, 24, 30]


def test_a_rate_beside_every_frame_gets_the_flags_it_gets_alone(tmp_path):
    frames = list(read_frames(write(tmp_path / "clip.mp4", numbered(20)), 10, None))
    assert indices(frames, 0) == [0, 3, 6, 9, 12, 15, 18]
    assert indices(frames, 1) == list(range(20))


@pytest.mark.parametrize("fps", [30, 31, 120, 1e6])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])  # Matroska rounds 1/30 s to 33 ms
def test_a_rate_at_or_above_the_clips_own_gives_every_frame_once(tmp_path, fps, name):
    frames = read_frames(write(tmp_path / name, numbered(40)), fps)
    assert indices(frames) == list(range(40))


def test_frames_of_a_variable_rate_are_chosen_by_their_time(tmp_path):
    # Ticks at 2 fps: 0 -> frame at 0 ms; 500 -> 500; 1000 -> 1490; 1500 -> 1502; 2000 -> 3000, once.
    stamps_ms = [0, 40, 80, 500, 520, 1490, 1502, 1600, 3000, 3400, 3500]
    path = write(tmp_path / "clip.mkv", numbered(11), options=INTRA, stamps_ms=stamps_ms)
    frames = list(read_frames(path, 2.0))
    assert indices(frames) == [0, 3, 5, 6, 8, 10]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.5, 1.49, 1.502, 3.0, 3.5])


def test_the_clock_allows_a_millisecond_of_rounding_and_keeps_a_tick_once():
    clock = FrameClock(2)
    # 499 ms serves the tick at 500, so 500 is not due again; 998.9 is too early for 1000, 999.5 is not.
    assert [clock.keeps(t) for t in (0, 0.4985, 0.4995, 0.5, 0.9989, 0.9995)] == [
        True, False, True, False, False, True,
    ]  # fmt: skip


def test_after_a_gap_the_clock_does_not_catch_up():
    clock = FrameClock(10)
    # 5.03 s serves the tick of 5.0, the next is 5.1; 7.9995 already serves the tick of 8.0.
    times, kept = (
        (0, 5.03, 5.05, 5.07, 5.1, 7.9995, 8.0),
        [True, True, False, False, True, True, False],
    )
    assert [clock.keeps(t) for t in times] == kept


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "2"])
def test_a_rate_that_is_no_finite_number_above_zero_is_refused(tmp_path, fps):
    path = write_video(tmp_path / "clip.mp4", numbered(2), 30)
    with pytest.raises(ValueError, match="finite number above 0, got"):
        read_frames(path, fps)
    with pytest.raises(ValueError, match="finite number above 0, got"):
        write_video(path, numbered(2), fps)


@pytest.mark.parametrize("first_ms", [-300, 5000])
def test_time_counts_from_the_first_frame_wherever_its_stamp_starts(tmp_path, first_ms):
    stamps_ms = [first_ms + 100 * number for number in range(8)]
    keep = {"avoid_negative_ts": "disabled"}
    path = write(
        tmp_path / "clip.ts",
        numbered(8),
        options=INTRA,
        stamps_ms=stamps_ms,
        container_options=keep,
    )
    with av.open(str(path)) as container:  # the file really starts there
        assert float(next(container.decode(video=0)).time) == pytest.approx(first_ms / 1000)
    assert [frame.time_s for frame in read_frames(path)] == pytest.approx(
        [n / 10 for n in range(8)]
    )


def test_a_stream_without_time_stamps_is_timed_by_its_rate(tmp_path):
    path = write(tmp_path / "clip.h264", numbered(40), form="h264")
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).pts is None
    reader = read_frames(path)
    assert [frame.time_s for frame in reader] == pytest.approx([n / 30 for n in range(40)])
    assert reader.duration_s == pytest.approx(40 / 30)


def test_stamps_that_jump_about_never_take_time_backwards(tmp_path):
    # AVI stores no presentation stamps; with B-frames those that FFmpeg invents come out of order.
    path = write(tmp_path / "clip.avi", [four_corners() // 8 * (n // 8) for n in range(60)])
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)
    reader = read_frames(path, 2.0, None)
    frames = list(reader)
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)
    assert times == pytest.approx(
        [n / 30 for n in range(60)], abs=0.07
    )  # two frames while it finds out
    assert indices(frames) == [0, 15, 30, 45]


def test_two_recordings_joined_in_one_file_play_one_after_the_other(tmp_path):
    part = write(tmp_path / "part.ts", numbered(45), options=INTRA).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part + part)  # the stamps start again: 1.5 s back
    reader = read_frames(joined)
    assert [frame.time_s for frame in reader] == pytest.approx(
        [n / 30 for n in range(90)], abs=0.002
    )
    assert reader.duration_s == pytest.approx(3.0, abs=0.002)


# ---- what memory and files it holds


def test_only_frames_that_are_due_are_turned_into_rgb(tmp_path, monkeypatch):
    converted, convert = [], video.VideoReader._to_rgb
    monkeypatch.setattr(
        video.VideoReader, "_to_rgb", lambda *given: converted.append(1) or convert(*given)
    )
    reader = read_frames(write(tmp_path / "clip.mp4", numbered(60)), 2.0)
    assert len(list(reader)) == len(converted) == 4
    assert reader.frames_decoded == 60


def test_no_frame_is_held_after_it_was_handed_over(tmp_path):
    earlier = []
    for frame in read_frames(write(tmp_path / "clip.mp4", numbered(20))):
        assert all(image() is None for image in earlier[:-1])  # the loop variable let go of them
        earlier.append(weakref.ref(frame.image))
    assert len(earlier) == 20


def test_an_image_may_be_written_to_without_spoiling_later_frames(tmp_path):
    for frame in read_frames(write(tmp_path / "clip.mov", numbered(6), "qtrle", "rgb24")):
        assert frame.image.flags.c_contiguous
        assert frame.image.flags.owndata
        assert (frame.image == 4 * frame.index).all()
        frame.image[:] = 255


def times_open(path):
    links = Path("/proc/self/fd").iterdir()
    return sum(link.exists() and link.resolve() == path for link in links)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files through /proc")
def test_the_file_is_closed_at_the_end_after_a_break_and_after_a_failure(tmp_path):
    path = write(tmp_path / "clip.mp4", numbered(20)).resolve()
    reader = read_frames(path)
    assert times_open(path) == 0
    for frame in reader:
        assert times_open(path) == 1
        if frame.index == 3:
            break
    assert times_open(path) == 0
    assert 4 <= reader.frames_decoded < 20
    list(reader)
    assert times_open(path) == 0
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match="there is no decoder"):
        list(read_frames(headless))
    assert times_open(headless) == 0


def test_more_decoder_threads_give_the_same_frames(tmp_path):
    path = write(tmp_path / "clip.mp4", [np.roll(four_corners(), n, axis=1) for n in range(20)])
    for one, two in zip(read_frames(path), read_frames(path, threads=2), strict=True):
        assert one.time_s == two.time_s
        assert (one.image == two.image).all()


# ---- upright, square, RGB


def fixed_point(a, b, c, d):
    """The display matrix (ISO 14496-12, `tkhd`): 16.16 numbers, the last one 2.30."""
    return [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "shown"),
    [
        # A stored point (x, y) is shown at (a x + c y, b x + d y), moved back into view. Stored: RG/BW.
        (1, 0, 0, 1, "RGBW"),
        (
            0,
            1,
            -1,
            0,
            "BRWG",
        ),  # x' = -y, y' = x: R goes top right, a quarter turn clockwise (phone held upright)
        (-1, 0, 0, -1, "WBGR"),  # half a turn
        (
            0,
            -1,
            1,
            0,
            "GWRB",
        ),  # x' = y, y' = -x: R goes bottom left, a quarter turn counter-clockwise
        (-1, 0, 0, 1, "GRWB"),  # mirrored left to right
        (0, 1, 1, 0, "RBGW"),  # mirrored along the falling diagonal
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_frames_are_turned_as_the_display_matrix_says(tmp_path, suffix, a, b, c, d, shown):
    matrix = fixed_point(a, b, c, d)
    path = write(tmp_path / f"clip{suffix}", [four_corners(32, 64)], matrix=matrix)
    assert struct.pack(">9i", *matrix) in path.read_bytes()
    (frame,) = read_frames(path)
    assert frame.image.shape == ((64, 32, 3) if a == 0 else (32, 64, 3))
    assert corners_of(frame.image) == shown


def test_rotation_agrees_with_the_angle_that_pyav_reports(tmp_path):
    path = write(tmp_path / "clip.mp4", [four_corners()], matrix=fixed_point(0, -1, 1, 0))
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
        assert stored.rotation == 90  # counter-clockwise
        turned = np.rot90(
            stored.to_ndarray(format="rgb24"), 1
        )  # NumPy's k = 1 is counter-clockwise too
    assert (next(iter(read_frames(path))).image == turned).all()


@pytest.mark.parametrize(
    ("orientation", "shown"), [(1, "RGBW"), (3, "WBGR"), (6, "BRWG"), (8, "GWRB")]
)
def test_a_photo_is_an_upright_clip_of_one_frame(tmp_path, orientation, shown):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: turn a quarter clockwise to view, 8: counter-clockwise
    Image.fromarray(four_corners()).save(path, exif=exif, quality=95)
    reader = read_frames(path, 2.0)
    (frame,) = reader
    assert corners_of(frame.image) == shown
    assert (frame.time_s, frame.index) == (0.0, 0)
    assert reader.warning == "this is a photo: the intensities are made for clips"
    assert 0 < reader.duration_s < 1


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [
        (Fraction(4, 3), (32, 64, 3)),  # wide pixels: 48 * 4/3 = 64 columns
        (Fraction(1, 2), (64, 48, 3)),  # high pixels: 32 * 2 = 64 rows
        (Fraction(1), (32, 48, 3)),
        (Fraction(90), (32, 48, 3)),  # nonsense is left alone
    ],
)
def test_pixels_come_out_square(tmp_path, aspect, shape):
    (frame,) = read_frames(write(tmp_path / "clip.mp4", [four_corners(32, 48)], aspect=aspect))
    assert frame.image.shape == shape
    assert corners_of(frame.image) == "RGBW"


def test_wide_pixels_are_stretched_before_the_picture_is_turned(tmp_path):
    matrix = fixed_point(0, 1, -1, 0)
    path = write(
        tmp_path / "clip.mp4", [four_corners(32, 48)], matrix=matrix, aspect=Fraction(4, 3)
    )
    (frame,) = read_frames(path)
    assert frame.image.shape == (64, 32, 3)  # 32 x 48 stored, 32 x 64 square, then turned
    assert corners_of(frame.image) == "BRWG"


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        (".mp4", "libx264", "yuv420p"),
        (".mp4", "libx264", "yuv420p10le"),
        (".avi", "mjpeg", "yuvj420p"),
        (".mkv", "ffv1", "yuva420p"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".mov", "png", "rgba"),
        (".mov", "qtrle", "argb"),
        (".mpg", "mpeg2video", "yuv420p"),
        (".mkv", "ffv1", "yuv444p16le"),
    ],
)
def test_every_pixel_format_comes_out_as_rgb(tmp_path, suffix, codec, pixels):
    rate = 25 if suffix == ".mpg" else 30
    frames = list(
        read_frames(write(tmp_path / f"clip{suffix}", [four_corners()] * 3, codec, pixels, rate))
    )
    assert len(frames) == 3
    for frame in frames:
        assert (frame.image.shape, frame.image.dtype) == ((32, 64, 3), np.uint8)
        assert corners_of(frame.image) == "RGBW"


def test_a_palette_comes_out_as_rgb(tmp_path):
    pictures = [
        Image.fromarray(four_corners()).quantize(8),
        Image.fromarray(four_corners()[::-1]).quantize(8),
    ]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=500)
    pictures[0].save(tmp_path / "photo.png")
    reader = read_frames(tmp_path / "clip.gif")
    assert [(corners_of(frame.image), frame.time_s) for frame in reader] == [
        ("RGBW", 0.0),
        ("BWRG", 0.5),
    ]
    assert reader.duration_s == pytest.approx(1.0)
    assert [corners_of(frame.image) for frame in read_frames(tmp_path / "photo.png")] == ["RGBW"]


@pytest.mark.parametrize("pixels", ["gray", "gray16le"])
def test_grey_comes_out_as_three_equal_channels(tmp_path, pixels):
    (frame,) = read_frames(
        write(tmp_path / "clip.mkv", [np.full((32, 48, 3), 200, np.uint8)], "ffv1", pixels)
    )
    assert frame.image.shape == (32, 48, 3)
    assert np.abs(frame.image.astype(int) - 200).max() <= 2


def test_full_range_black_and_white_are_not_stretched(tmp_path):
    bars = np.repeat(
        np.array([0, 16, 235, 255], np.uint8), 16
    )  # limited range would make 0 0 255 255
    image = np.broadcast_to(bars[None, :, None], (32, 64, 3)).copy()
    (frame,) = read_frames(write(tmp_path / "clip.avi", [image], "mjpeg", "yuvj420p"))
    assert frame.image[16, 8::16, 0].tolist() == pytest.approx([0, 16, 235, 255], abs=2)


def test_odd_sizes_keep_every_row_and_column(tmp_path):
    (frame,) = read_frames(write(tmp_path / "clip.mkv", [four_corners(35, 33)], "ffv1", "bgr0"))
    assert (frame.image == four_corners(35, 33)).all()


# ---- damaged files


def test_a_truncated_mp4_gives_the_frames_it_holds_then_says_so(tmp_path, caplog):
    path = intra_clip(tmp_path / "clip.mp4", 50)
    offset, size = packet_places(path)[31]
    path.write_bytes(
        path.read_bytes()[: offset + size // 2]
    )  # packet 31 is cut in two, 0 to 30 are whole
    reader = read_frames(path, 2.0, None)
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        assert indices(reader, 1) == list(range(31))
    assert reader.duration_s == pytest.approx(31 / 30)
    assert reader.warning.startswith("decoding stopped after 31 frames (1.0 s): ")
    assert "announces" not in reader.warning  # FFmpeg's own reason comes first
    assert reader.warning in caplog.text
    assert str(path) in caplog.text


def test_frames_that_the_decoder_held_back_when_the_file_broke_off_still_come(tmp_path):
    # With B-frames pictures leave the decoder some packets late: 31 whole packets are 31 frames all the same.
    images = [four_corners() // 8 * (n // 8) for n in range(60)]
    path = write(tmp_path / "clip.mp4", images, container_options={"movflags": "faststart"})
    offset, size = packet_places(path)[31]
    path.write_bytes(path.read_bytes()[: offset + size - 1])
    reader = read_frames(path)
    assert indices(reader) == list(range(31))
    assert reader.warning.startswith("decoding stopped after 31 frames")


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "libx264"), (".mpg", "mpeg2video"), (".webm", "libvpx")]
)
def test_other_truncated_files_give_what_they_hold_and_a_warning_if_they_announced_more(
    tmp_path, suffix, codec
):
    options = {"g": "1"} if codec == "libvpx" else INTRA
    rate = 25 if suffix == ".mpg" else 30
    path = write(
        tmp_path / f"clip{suffix}", [four_corners()] * 50, codec, rate=rate, options=options
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    reader = read_frames(path)
    frames = list(reader)
    assert 10 < len(frames) < 40
    assert all(corners_of(frame.image) == "RGBW" for frame in frames[:-1])
    if suffix != ".mpg":  # a program stream says nowhere how long it is
        assert reader.warning.startswith(f"decoding stopped after {len(frames)} frames (")


def test_damage_in_the_middle_is_stepped_over_and_counted(tmp_path):
    path = intra_clip(tmp_path / "clip.mp4", 30)
    content = bytearray(path.read_bytes())
    for number in (10, 20):
        offset, size = packet_places(path)[number]
        content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    reader = read_frames(path)
    # Frames 10 and 20 are missing: the others keep their own times and are numbered as they decode.
    expected = [number / 30 for number in range(30) if number not in (10, 20)]
    assert [frame.time_s for frame in reader] == pytest.approx(expected)
    assert reader.frames_decoded == 28
    assert reader.duration_s == pytest.approx(1.0)
    assert reader.warning.startswith("skipped 2 damaged packets: ")


def test_a_file_that_stays_damaged_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_DAMAGED_IN_A_ROW", 10)
    path = intra_clip(tmp_path / "clip.mp4", 40)
    content = bytearray(path.read_bytes())
    for offset, size in packet_places(path)[20:30]:
        content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    reader = read_frames(path)
    assert indices(reader) == list(range(20))
    assert reader.warning.startswith("decoding stopped after 20 frames (0.7 s): ")


# ---- files that are no video


def complaint(path):
    with pytest.raises(VideoError) as caught:
        list(read_frames(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "accepted are video files" in message
    return message


def test_a_missing_file_a_folder_and_an_empty_file_are_named_at_once(tmp_path):
    (tmp_path / "empty.mp4").touch()
    for path, what in [
        ("none.mp4", "no such file"),
        (".", "is a folder"),
        ("empty.mp4", "is empty (0 bytes)"),
    ]:
        assert what in complaint(tmp_path / path)
        with pytest.raises(VideoError) as caught:
            read_frames(tmp_path / path)  # before anything is iterated
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    assert "cannot be read" in complaint(Path("nul\0.mp4"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is a device or pipe" in complaint(tmp_path / "pipe.mp4")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_a_file_without_read_permission_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", numbered(2), 30)
    path.chmod(0)
    owner = os.geteuid()
    try:
        if owner == 0:
            os.seteuid(65534)  # root may read everything, nobody may not
        assert "cannot be read (Permission denied)" in complaint(path)
    finally:
        os.seteuid(owner)


@pytest.mark.parametrize("name", ["notes.mp4", "notes.txt", "notes.avi", "notes.gif"])
def test_a_text_file_is_refused_whatever_its_name(tmp_path, name):
    (tmp_path / name).write_text("These are words, and not moving pictures.\n" * 40)
    complaint(tmp_path / name)


def test_lists_that_point_to_other_files_are_refused(tmp_path):
    write_video(tmp_path / "clip.mp4", numbered(2), 30)
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\n# \1\nfile 'clip.mp4'\n")
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://192.0.2.1/x.ts\n"
    )
    assert "is text, not a video" in complaint(tmp_path / "list.ffconcat")
    complaint(tmp_path / "list.m3u8")


@pytest.mark.parametrize(("name", "codec"), [("sound.wav", "pcm_s16le"), ("sound.m4a", "aac")])
def test_sound_alone_is_no_video(tmp_path, name, codec):
    assert "no video stream (found: audio)" in complaint(write_sound(tmp_path / name, codec))


def test_the_cover_picture_of_a_sound_file_is_no_video(tmp_path):
    path = write_sound(tmp_path / "sound.mp4", "aac", cover=True)
    assert "no video stream (found: a cover picture, audio)" in complaint(path).replace(
        "found: audio, a cover picture", "found: a cover picture, audio"
    )


def test_a_video_stream_without_a_frame_is_refused(tmp_path):
    path = intra_clip(tmp_path / "clip.mp4", 10)
    path.write_bytes(path.read_bytes()[: packet_places(path)[0][0] + 5])
    assert "not one frame can be decoded" in complaint(path)


def test_every_way_of_cutting_or_spoiling_a_file_ends_in_frames_or_a_video_error(tmp_path):
    generator = np.random.default_rng(0)
    content = intra_clip(tmp_path / "clip.mp4", 12).read_bytes()
    path = tmp_path / "spoiled.mp4"
    for number in range(40):
        spoiled = bytearray(
            content[: len(content) if number % 2 else generator.integers(1, len(content))]
        )
        for place in generator.integers(0, len(spoiled), 8):
            spoiled[place] = generator.integers(256)
        path.write_bytes(spoiled)
        try:
            times = [frame.time_s for frame in read_frames(path)]
        except VideoError:
            continue
        assert times == sorted(times)
        assert times[0] == 0


# ---- writing


def test_a_written_video_reads_back(tmp_path):
    images = [np.roll(four_corners(), 4 * n, axis=1) for n in range(6)]
    path = write_video(tmp_path / "clip.mp4", iter(images), 29.97)
    reader = read_frames(path)
    for frame, image in zip(reader, images, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 3
    assert reader.duration_s == pytest.approx(6 / 29.97, abs=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_odd_sizes_are_written_with_one_more_row_and_column(tmp_path):
    (frame,) = read_frames(write_video(tmp_path / "clip.mp4", [four_corners(33, 47)], 30))
    assert frame.image.shape == (34, 48, 3)
    assert corners_of(frame.image) == "RGBW"


@pytest.mark.parametrize(
    ("images", "what"),
    [
        ([], "at least one image, got none"),
        ([np.zeros((32, 32), np.uint8)], r"got shape \(32, 32\)"),
        ([np.zeros((32, 32, 3))], "got float64"),
        (
            [np.zeros((32, 32, 3), np.uint8), np.zeros((32, 34, 3), np.uint8)],
            r"\(32, 34, 3\) at number 1",
        ),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, images, what):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=what):
        write_video(path, images, 30)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == b"old"


# ---- real clips


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("single_face.mp4", 72),
        ("face_noface.mov", 169),
        ("grid_bbaf2n.mpg", 75),
        ("WolfgangLanger_Pexels.mp4", 472),
    ],
)
def test_real_clips_decode_completely(name, count):
    if not (CLIPS / name).exists():
        pytest.skip(f"the real clip {name} is not here")
    reader = read_frames(CLIPS / name, 2.0)
    times = [frame.time_s for frame in reader]
    assert (reader.frames_decoded, reader.warning) == (count, None)
    assert times == pytest.approx(
        [n / 2 for n in range(len(times))], abs=0.05
    )  # the frame at or after each tick
    assert len(times) == int(times[-1] * 2) + 1


def test_the_extent_of_a_recording_without_a_length_in_its_header_is_that_of_its_packets(tmp_path):
    live = write(
        tmp_path / "live.mkv",
        numbered(45),
        rate=30,
        container_options={"live": "1"},
        form="matroska",
    )
    with av.open(str(live)) as container:
        assert container.duration is None  # as in what a browser records
    extent = measure_video(live)
    assert extent.duration_s == pytest.approx(45 / 30, abs=0.04)
    assert (extent.packets, extent.width, extent.height) == (45, 48, 32)


def test_the_extent_of_an_ordinary_clip_is_what_is_decoded(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", numbered(40), 20)
    reader = read_frames(clip)
    frames = list(reader)
    extent = measure_video(clip)
    assert (extent.packets, extent.duration_s) == (len(frames), pytest.approx(reader.duration_s))


def test_the_extent_of_text_is_an_error_in_words(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match="is text, not a video"):
        measure_video(tmp_path / "text.mp4")


# ---- clocks that jump


def by_another_clock(part, path, offset_s):
    """The same packets with stamps that are later."""
    with av.open(str(part)) as source:
        options = {"avoid_negative_ts": "disabled"}
        with av.open(str(path), "w", options=options) as output:
            stream = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.pts += round(offset_s / packet.time_base)
                    packet.dts += round(offset_s / packet.time_base)
                    packet.stream = stream
                    output.mux(packet)
    return path


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"), [(".ts", "libx264", 30), (".mpg", "mpeg2video", 25)]
)
@pytest.mark.parametrize(
    ("first_s", "second_s"),
    [(0, 4000), (4000, 0), (100, 3), (20, 15), (15, 20), (10, 9.5), (80_000, 10)],
)
def test_a_clock_that_jumps_continues_where_the_recording_stopped(
    tmp_path, suffix, codec, rate, first_s, second_s
):
    part = write(tmp_path / f"part{suffix}", numbered(2 * rate), codec, rate=rate, options=INTRA)
    parts = [
        by_another_clock(part, tmp_path / f"{n}{suffix}", s).read_bytes()
        for n, s in enumerate((first_s, second_s))
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    reader = read_frames(path)
    times = [frame.time_s for frame in reader]
    assert times == pytest.approx([n / rate for n in range(4 * rate)], abs=0.05)
    assert reader.duration_s == pytest.approx(4.0, abs=0.05)
    assert reader.warning.startswith("the file's clock jumps once at 2.0 s, by ")
    assert measure_video(path).duration_s == pytest.approx(4.0, abs=0.05)


def test_a_clock_of_33_bits_that_starts_again_is_no_jump(tmp_path):
    part = write(tmp_path / "part.ts", numbered(60), options=INTRA)
    path = by_another_clock(part, tmp_path / "clip.ts", 2**33 / 90_000 - 2.5)
    reader = read_frames(path)
    times = [frame.time_s for frame in reader]
    assert times == pytest.approx([n / 30 for n in range(60)], abs=0.002)
    assert reader.warning is None
    assert measure_video(path).duration_s == pytest.approx(2.0, abs=0.01)


def test_a_pause_in_a_format_without_jumps_stays_a_pause(tmp_path):
    path = write(tmp_path / "a.mkv", numbered(4), options=INTRA, stamps_ms=[0, 500, 5000, 5500])
    reader = read_frames(path)
    assert [frame.time_s for frame in reader] == [0, 0.5, 5, 5.5]
    assert reader.warning is None


def test_clips_whose_clock_restarts_are_as_long_as_their_parts_together(tmp_path):
    part = write(tmp_path / "part.ts", numbered(60), options=INTRA).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part * 20)
    assert measure_video(path).duration_s == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize("fps", [331, 500, 999, 1000])
def test_a_high_rate_keeps_each_frame_of_its_own_rate_once(fps):
    clock = FrameClock(fps)
    assert all(clock.keeps(round(n / fps, 3)) for n in range(50))
    half = FrameClock(fps / 2)
    kept = [n for n in range(50) if half.keeps(n / fps)]
    assert kept == list(range(0, 50, 2))


# ---- data that a decoder made up


def drop_packets(path, start, count):
    """Lose transport packets of a TS: `count` of them from that share of the file on."""
    content = path.read_bytes()
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    first = int(start * len(packets))
    path.write_bytes(b"".join(packets[:first] + packets[first + count :]))


def busy(count, size=(144, 176)):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (size[0] + count, size[1], 3)).astype(np.uint8)
    return [noise[n : n + size[0]] for n in range(count)]


def test_damaged_frames_are_marked_up_to_the_next_key_frame_and_noted(tmp_path):
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": "0"}
    path = write(tmp_path / "clip.ts", busy(40), options=options)
    assert not any(frame.damaged for frame in read_frames(path))
    drop_packets(path, 0.6, 3)
    reader = read_frames(path)
    damaged = [frame.index for frame in reader if frame.damaged]
    assert damaged
    assert damaged == list(range(damaged[0], damaged[-1] + 1))
    assert 10 <= damaged[0] <= damaged[-1] < 30
    assert f"{len(damaged)} of {reader.frames_decoded} frames are damaged (" in reader.warning
    assert "count as frames without a face" in reader.warning


def test_segments_of_a_stream_written_one_after_the_other_are_whole(tmp_path):
    # As people join the segments of an HLS stream: packet counters start again, the clock does not.
    part = write(tmp_path / "part.ts", busy(60), options={"g": "30"})
    segments = [by_another_clock(part, tmp_path / f"{n}.ts", 2 * n).read_bytes() for n in range(3)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(segments))
    reader = read_frames(path)
    assert not any(frame.damaged for frame in reader)
    assert (reader.frames_decoded, reader.warning) == (180, None)


def test_frames_shown_before_a_damaged_one_that_they_were_predicted_from_are_marked(shared_faulty):
    frames = list(read_frames(shared_faulty / "packet_loss.ts"))
    assert all(frame.damaged for frame in frames if 3.47 < frame.time_s < 3.99)
    assert all(frame.damaged for frame in frames if frame.time_s > 4.13)
    assert all(frame.damaged for frame in frames if frame.time_s < 1.99)
    assert not frames[49].damaged  # the key frame at 2 s


# ---- several picture tracks


def write_tracks(path, *tracks):
    """Tracks of (images, default?), one after the other."""
    with av.open(str(path), "w") as container:
        streams = []
        for images, default in tracks:
            stream = container.add_stream("libx264", rate=30, options=INTRA)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition.default if default else 0
            streams.append((stream, images))
        for stream, images in streams:
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("tracks", "chosen"),
    [
        ([(1, False), (40, True)], 1),  # a thumbnail before the default track
        ([(1, True), (40, False)], 1),  # a thumbnail that calls itself the default
        ([(60, False), (40, True)], 1),  # the default, though shorter
        ([(30, True), (60, True)], 1),  # of two defaults the longer
        ([(60, False), (30, False)], 0),
    ],
)
def test_of_several_picture_tracks_the_default_then_the_longest_is_read(tmp_path, tracks, chosen):
    sizes = [(32, 48), (64, 96)]
    made = [
        (numbered(count, *size), default)
        for (count, default), size in zip(tracks, sizes, strict=True)
    ]
    path = write_tracks(tmp_path / "clip.mkv", *made)
    reader = read_frames(path)
    frames = list(reader)
    assert len(frames) == tracks[chosen][0]
    assert frames[0].image.shape[:2] == sizes[chosen]
    assert f"the file has 2 picture tracks; track {chosen + 1} (" in reader.warning
    assert measure_video(path).packets == tracks[chosen][0]


# ---- HDR


@pytest.mark.parametrize("transfer", [16, 18])  # PQ, HLG (ITU-T H.273)
def test_hdr_is_converted_to_sdr(tmp_path, transfer):
    grey = 0.58 if transfer == 16 else 0.75  # of reference white in each (ITU-R BT.2408)
    image = np.full((32, 64, 3), round(255 * grey), np.uint8)
    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p10le")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reader = read_frames(path)
    (found,) = reader
    assert found.image.mean() > 1.2 * image.mean()  # reference white is bright in SDR
    assert found.image.std(axis=(0, 1)).max() < 1
    assert reader.warning is None


def test_hdr_that_cannot_be_converted_is_read_with_a_note(shared_faulty, monkeypatch):
    convert = video._reformat

    def old(frame, **settings):
        if "dst_color_trc" in settings:
            raise TypeError("unexpected keyword")
        return convert(frame, **settings)

    monkeypatch.setattr(video, "_reformat", old)
    reader = read_frames(shared_faulty / "hdr_hlg.mp4", 2.0)
    assert len(list(reader)) == 12
    assert reader.warning == "HDR (PQ or HLG) could not be converted and was read as SDR"


def test_an_hdr_recording_looks_like_the_same_in_sdr(shared_faulty):
    for hdr, sdr in zip(
        read_frames(shared_faulty / "hdr_hlg.mp4", 2.0),
        read_frames(shared_faulty / "sdr_10bit.mp4", 2.0),
        strict=True,
    ):
        assert np.abs(hdr.image.astype(int) - sdr.image).mean() < 5  # 22 before


# ---- recordings that were cut off


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_a_recording_with_sound_that_was_cut_off_says_so(tmp_path, tagged, cut):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=30, options=INTRA)
        picture.height, picture.width, picture.pix_fmt = 144, 176, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number, image in enumerate(busy(90)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(picture.encode(frame))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 266), np.int16), "s16", "mono")
            samples.sample_rate, samples.pts = 8000, 266 * number
            container.mux(sound.encode(samples))
        container.mux(picture.encode(None))
    content = path.read_bytes()
    if not tagged:
        content = content.replace(b"DURATION", b"DURATIOX")
    path.write_bytes(content[: len(content) // 2] if cut else content)
    reader = read_frames(path)
    frames = len(list(reader))
    if cut:
        assert frames < 60
        assert reader.warning.startswith(f"decoding stopped after {frames} frames (")
        assert "its header announces 3.0 s" in reader.warning
    else:
        assert (frames, reader.warning) == (90, None)


@pytest.mark.parametrize("name", ["cut_off_with_sound.mkv", "cut_off_silent.mkv"])
def test_recordings_that_were_cut_off_are_noted(shared_faulty, name):
    reader = read_frames(shared_faulty / name)
    assert len(list(reader)) == 80
    assert "its header announces 6.0 s" in reader.warning


# ---- frames that are too large


def test_a_frame_larger_than_the_limit_is_refused_by_the_header(tmp_path):
    path = write(tmp_path / "clip.mp4", numbered(3))
    assert len(list(read_frames(path, max_pixels=32 * 48))) == 3
    with pytest.raises(VideoError, match=r"a frame of 48 x 32 is larger than 1,535 pixels"):
        list(read_frames(path, max_pixels=32 * 48 - 1))


def grows(tmp_path, suffix, codec):
    parts = [
        write(tmp_path / f"{n}{suffix}", numbered(10, *size), codec, rate=25, options=INTRA)
        for n, size in enumerate([(32, 48), (320, 480)])
    ]
    path = tmp_path / f"grows{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert len(list(read_frames(path))) >= 19
    return path


def test_a_later_frame_larger_than_the_limit_is_refused(tmp_path):
    path = grows(tmp_path, ".ts", "libx264")
    with pytest.raises(VideoError, match=r"a frame of 480 x 320 is larger than 20,000 pixels"):
        list(read_frames(path, max_pixels=20_000))


def test_where_the_decoder_does_not_tell_the_size_it_stops_before_a_frame_that_is_too_large(
    tmp_path,
):
    reader = read_frames(grows(tmp_path, ".mpg", "mpeg2video"), max_pixels=20_000)
    assert {frame.image.shape for frame in reader} == {(32, 48, 3)}
    assert "decoding stopped after" in reader.warning


def test_a_frame_that_does_not_fit_in_memory_is_a_video_error(tmp_path, monkeypatch):
    def full(*given, **settings):
        raise MemoryError

    monkeypatch.setattr(video, "_reformat", full)
    with pytest.raises(VideoError, match="a frame of 48 x 32 is larger than memory"):
        list(read_frames(write(tmp_path / "clip.mp4", numbered(3))))


def test_a_frame_of_16000_pixels_a_side_is_refused_while_memory_stays_flat(shared_faulty):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VideoError, match="a frame of 16000 x 16000 is larger than 67,108,864"):
        list(read_frames(shared_faulty / "grows.ts", 2.0))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # kB; 768 MB as RGB


def test_a_pause_of_over_a_minute_is_noted_and_a_shorter_one_is_not(tmp_path):
    notes = []
    for last_ms in (60_000, 90_000):
        write(tmp_path / "pause.mkv", numbered(3), stamps_ms=[0, 40, last_ms])
        reader = read_frames(tmp_path / "pause.mkv")
        list(reader)
        notes.append(reader.warning)
    assert notes == [None, "no picture from 0.1 to 90.0 s"]
