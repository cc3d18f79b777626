"""What redrawing a video keeps: every frame, its time, the size, which way is up, and the sound packet by packet."""

import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from mma_mrnnet.video.reading import VideoError, read_frames
from mma_mrnnet.video.writing import redraw_video, write_video

UNEVEN_MS = [0, 33, 73, 93, 193, 693, 709, 726, 800]  # a rate that varies


def recording(
    path, sound=None, stamps_ms=UNEVEN_MS, size=(48, 64), start_ms=0, matrix=None, layout="mono"
):
    """Grey frames, each lighter than the one before, at these times; a tone beside."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=30)
        picture.height, picture.width = size
        picture.pix_fmt = "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        if matrix:
            picture.set_display_matrix(matrix)
        tone = container.add_stream(sound, rate=48_000, layout=layout) if sound else None
        for place in range(0, 48 * stamps_ms[-1] if tone else 0, 1024):
            wave = 0.3 * np.sin(np.arange(place, place + 1024) / 20)
            frame = av.AudioFrame.from_ndarray(
                np.repeat(wave[None], tone.channels, 0).astype(np.float32), "fltp", layout
            )
            frame.sample_rate, frame.pts, frame.time_base = 48_000, place, Fraction(1, 48_000)
            container.mux(tone.encode(frame))
        if tone:
            container.mux(tone.encode(None))
        for number, stamp in enumerate(stamps_ms):
            frame = av.VideoFrame.from_ndarray(
                np.full((*size, 3), 20 * number % 256, np.uint8), "rgb24"
            )
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = stamp + start_ms, Fraction(1, 1000)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
    return path


def times_of(path):
    return [frame.time_s for frame in read_frames(path)]


def sound_of(path):
    """(time, bytes) of each packet of sound."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(audio=0)
            if packet.size
        ]


def kinds_of(path):
    with av.open(str(path)) as container:
        return [stream.codec_context.codec.canonical_name for stream in container.streams]


def same(frame):
    return frame.image


@pytest.mark.parametrize(
    ("name", "sound"),
    [("a.mp4", "aac"), ("a.mkv", "libopus"), ("b.mp4", "libmp3lame"), ("n.mp4", None)],
)
def test_every_frame_its_time_and_every_packet_of_sound_stay(tmp_path, name, sound):
    source = recording(tmp_path / name, sound)
    assert redraw_video(source, tmp_path / "out.mp4", same) == []
    assert times_of(tmp_path / "out.mp4") == pytest.approx(times_of(source), abs=1e-6)
    before, after = read_frames(source), read_frames(tmp_path / "out.mp4")
    greys = [[frame.image.mean() for frame in reader] for reader in (before, after)]
    assert np.allclose(*greys, atol=3)
    assert after.duration_s == pytest.approx(before.duration_s, abs=1e-3)
    assert [data for _, data in sound_of(tmp_path / "out.mp4")] == [
        data for _, data in sound_of(source)
    ]
    times = [[time_s for time_s, _ in sound_of(path)] for path in (source, tmp_path / "out.mp4")]
    assert np.allclose(*times, atol=2e-3)  # Matroska rounds to 1 ms
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out.mp4"])


def test_pictures_and_sound_stay_together_where_a_files_clock_does_not_start_at_nought(tmp_path):
    source = recording(tmp_path / "a.ts", "aac", start_ms=5000)

    def lead(path):
        """How long before the first picture the sound begins, by the file's own clock."""
        with av.open(str(path)) as container:
            starts = {
                stream.type: stream.start_time * stream.time_base for stream in container.streams
            }
        return float(starts["video"] - starts["audio"])

    assert redraw_video(source, tmp_path / "out.mp4", same) == []
    assert times_of(tmp_path / "out.mp4") == pytest.approx(times_of(source), abs=1e-4)
    assert lead(source) > 4.9
    assert lead(tmp_path / "out.mp4") == pytest.approx(
        lead(source), abs=0.03
    )  # AAC's priming, 21 ms, is no sound


def test_sound_that_players_of_mp4_do_not_know_is_encoded_anew_and_said_so(tmp_path):
    source = recording(tmp_path / "a.mov", "pcm_s16le")
    (said,) = redraw_video(source, tmp_path / "out.mp4", same)
    assert said == "the sound (pcm_s16le) was encoded anew as AAC, which players of mp4 know"
    assert kinds_of(tmp_path / "out.mp4") == ["h264", "aac"]
    first, last = sound_of(tmp_path / "out.mp4")[0][0], sound_of(tmp_path / "out.mp4")[-1][0]
    assert (first, last) == pytest.approx((0, 0.8), abs=0.05)


def test_a_phones_turned_recording_comes_out_upright(tmp_path):
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    source = recording(tmp_path / "a.mov", matrix=quarter)
    (width, height) = next(iter(read_frames(source))).image.shape[1::-1]
    assert (width, height) == (48, 64)
    redraw_video(source, tmp_path / "out.mp4", same)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (48, 64, "yuv420p")
    assert next(iter(read_frames(tmp_path / "out.mp4"))).image.shape == (64, 48, 3)


def test_odd_sizes_grow_by_one_and_other_shapes_are_stretched(tmp_path):
    source = recording(tmp_path / "a.mp4")
    sizes = iter([(47, 63), (47, 63), (20, 30)])
    redraw_video(
        source,
        tmp_path / "out.mp4",
        lambda frame: np.full((*next(sizes, (47, 63)), 3), 99, np.uint8),
    )
    assert {frame.image.shape for frame in read_frames(tmp_path / "out.mp4")} == {(48, 64, 3)}


def test_one_frame_is_a_video_too(tmp_path):
    source = recording(tmp_path / "a.mp4", stamps_ms=[0])
    redraw_video(source, tmp_path / "out.mp4", same)
    assert times_of(tmp_path / "out.mp4") == [0]


def test_frames_are_let_go_once_they_were_drawn(tmp_path):
    source = write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 30, 30)
    alive, most = [], []

    def draw(frame):
        alive.append(weakref.ref(frame))
        most.append(sum(ref() is not None for ref in alive))
        return frame.image

    redraw_video(source, tmp_path / "out.mp4", draw)
    assert len(most) == 30
    assert max(most) <= 3


def test_the_clip_itself_is_never_written_over(tmp_path):
    source = recording(tmp_path / "a.mp4")
    (tmp_path / "link.mp4").symlink_to(source)
    before = source.read_bytes()
    for target in (source, tmp_path / "." / "a.mp4", tmp_path / "link.mp4"):
        with pytest.raises(ValueError, match="is the clip itself"):
            redraw_video(source, target, same)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("out.avi", r"written as \.mp4; got '\.avi'"),
        ("none/out.mp4", "folder .* does not exist"),
        ("dir.mp4", "is a folder"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_any_work(tmp_path, target, what):
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(ValueError, match=what):
        redraw_video(
            recording(tmp_path / "a.mp4"),
            tmp_path / target,
            lambda _: pytest.fail("it began to draw"),
        )


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    source = recording(tmp_path / "a.mp4", "aac")
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")

    def fails(frame):
        if frame.index == 5:
            raise RuntimeError("the painter fell")
        return frame.image

    with pytest.raises(RuntimeError, match="the painter fell"):
        redraw_video(source, target, fails)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match="is text"):
        redraw_video(tmp_path / "text.mp4", target, same)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "out.mp4", "text.mp4"]


def test_what_a_damaged_file_lost_is_said(tmp_path):
    source = write_video(
        tmp_path / "a.mp4", [np.full((32, 48, 3), 4 * n, np.uint8) for n in range(60)], 30
    )
    (tmp_path / "cut.mp4").write_bytes(source.read_bytes()[:-600])
    (said,) = redraw_video(tmp_path / "cut.mp4", tmp_path / "out.mp4", same)
    assert "frames" in said or "damaged" in said
    assert len(times_of(tmp_path / "out.mp4")) == len(times_of(tmp_path / "cut.mp4")) > 10


# ---- files whose clock jumps, and sound with a broken header


def by_another_clock(part, path, offset_s):
    """The same packets with stamps that are later."""
    with av.open(str(part)) as source, av.open(str(path), "w") as output:
        streams = [output.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.pts += offset_s * 90_000
                packet.dts += offset_s * 90_000
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return path


@pytest.mark.parametrize(("first_s", "second_s"), [(0, 4000), (4000, 0), (20, 15), (15, 20)])
def test_joined_recordings_keep_pictures_and_sound_together(tmp_path, first_s, second_s):
    part = recording(tmp_path / "part.ts", "mp2", list(range(0, 2000, 40)))
    first = by_another_clock(part, tmp_path / "first.ts", first_s)
    second = by_another_clock(part, tmp_path / "second.ts", second_s)
    source = tmp_path / "joined.ts"
    source.write_bytes(first.read_bytes() + second.read_bytes())
    jumped, encoded = redraw_video(source, tmp_path / "out.mp4", same)
    assert jumped.startswith("the file's clock jumps once at 2.0 s")
    assert encoded == "the sound (mp2) was encoded anew as AAC, which players of mp4 know"
    assert times_of(tmp_path / "out.mp4") == pytest.approx([n / 25 for n in range(100)], abs=0.05)
    sound = [time_s for time_s, _ in sound_of(tmp_path / "out.mp4")]
    assert sound[-1] - sound[0] == pytest.approx(4.0, abs=0.2)
    assert np.diff(sound).max() < 0.1


def test_sound_whose_header_is_cut_is_left_out_and_said_so(shared_faulty, tmp_path):
    source = shared_faulty / "m3_00090.ts"
    assert redraw_video(source, tmp_path / "out.mp4", same) == [
        "the sound (ac3) cannot be decoded: left out"
    ]
    assert len(times_of(tmp_path / "out.mp4")) == 5
