"""Write RGB frames to a video file, or redraw a video with its sound."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from mma_mrnnet.files import check_can_write_file, replaced_file
from mma_mrnnet.video.reading import VideoFrame, check_rate, open_container, read_frames
from mma_mrnnet.video.timeline import Clock, may_be_joined

_COPIED = frozenset({"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"})
"""Audio codecs that mp4 players support; FFmpeg would write more."""

_FINE_TICK = Fraction(1, 90_000)  # MPEG's tick, for files without a clock
_USUAL_RATE = 25
_LONGEST_LEAD_S = 3600.0  # of sound before the pictures


def write_video(path: str | os.PathLike[str], images: Iterable[np.ndarray], fps: float) -> Path:
    """Write (H, W, 3) uint8 RGB images of one size as an H.264 mp4, atomically; return its path.

    An odd side grows by one repeated row or column, since yuv420p needs even sides.

    Raises:
        ValueError: no image, another shape or type, or `fps` is not a finite number > 0.
    """
    check_rate(fps)
    path, images = Path(path), iter(images)
    first = next(images, None)
    if first is None:
        raise ValueError(f"{path}: a video needs at least one image, got none")
    rate = Fraction(fps).limit_denominator(10_000)
    with replaced_file(path) as staging:
        _encode(staging, chain([first], images), np.shape(first), rate)
    return path


def redraw_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    draw: Callable[[VideoFrame], np.ndarray],
) -> list[str]:
    """Write a video's frames as `draw` returns them, as an H.264 mp4 for browsers.

    Every frame keeps its time, upright and with square pixels. Sound is copied if mp4 players
    support it, else encoded as AAC. Frames are streamed, not held. `draw` is called once per frame,
    in order. The target is written atomically. Returns descriptions of what was lost.

    Raises:
        VideoError: the source cannot be read as a video.
        ValueError: the target is not an .mp4 file, is the source, or cannot be written.
    """
    source, target = Path(source), Path(target)
    check_target(source, target)
    with replaced_file(target) as staging:
        return _redraw(source, staging, draw)


def check_target(source: Path, target: Path) -> None:
    """Raise ValueError if `redraw_video` cannot write `target`. Called before any work."""
    if target.suffix.lower() != ".mp4":
        raise ValueError(
            f"{target}: a video is written as .mp4; got {target.suffix or 'no ending'!r}"
        )
    check_can_write_file(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{target}: is the clip itself, which is never written over")


def _encode(
    path: Path, images: Iterable[np.ndarray], shape: tuple[int, ...], rate: Fraction
) -> None:
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"images must be uint8 (H, W, 3), got shape {shape}")
    with _open_mp4(path) as container:
        stream = _add_picture_stream(container, shape, rate, {"crf": "18"})
        for index, image in enumerate(images):
            if image.dtype != np.uint8 or image.shape != shape:
                came = f"{image.dtype} {image.shape} at number {index}"
                raise ValueError(
                    f"images must be uint8, all of the first one's shape {shape}, got {came}"
                )
            frame = _to_yuv(image, stream)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _redraw(source: Path, path: Path, draw: Callable[[VideoFrame], np.ndarray]) -> list[str]:
    reader = read_frames(source)
    frames = iter(reader)
    with ExitStack() as stack:
        first = next(frames)  # raises VideoError without frames
        container = stack.enter_context(_open_mp4(path))
        original = stack.enter_context(open_container(source))
        unit = reader.time_base or _FINE_TICK
        # Without B-frames each frame keeps its own duration at a varying rate.
        options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        stream = _add_picture_stream(container, first.image.shape, _rate_of(original), options)
        stream.codec_context.time_base = unit
        # Else the last frame gets the previous one's duration.
        stream.codec_context.flags |= Flags.frame_duration
        shift_s = (original.start_time or 0) / av.time_base
        if not 0 <= reader.start_s - shift_s < _LONGEST_LEAD_S:  # the clock jumps
            shift_s = reader.start_s
        sound = _Sound(original, container, shift_s)
        pts = None
        for frame in chain([first], frames):
            time_s = reader.start_s - shift_s + frame.time_s
            sound.write_until(time_s)
            image = _to_yuv(draw(frame), stream)
            # Frames with equal times, as in damaged files, get one tick between them.
            pts = round(time_s / unit) if pts is None else max(round(time_s / unit), pts + 1)
            image.pts, image.time_base = pts, unit
            image.duration = max(round((reader.duration_s - frame.time_s) / unit), 1)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
        sound.write_until(None)
    return [part for part in (reader.warning, *sound.lost) if part]


def _open_mp4(path: Path) -> OutputContainer:
    return av.open(f"file:{path}", "w", format="mp4", options={"movflags": "faststart"})


def _add_picture_stream(
    container: OutputContainer, shape: tuple[int, ...], rate: Fraction, options: dict[str, str]
) -> VideoStream:
    """Add an H.264 stream of (H, W, 3) images; an odd side grows by one, as yuv420p needs."""
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = (side + side % 2 for side in shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1  # for identical files on all machines
    stream.codec_context.colorspace = (
        Colorspace.ITU601
    )  # as `reformat` uses; else players guess by size
    return stream


def _to_yuv(image: np.ndarray, stream: VideoStream) -> av.VideoFrame:
    """Return the encoder's frame, resized to the first image's size."""
    right, below = stream.width - image.shape[1], stream.height - image.shape[0]
    if {right, below} <= {0, 1} and right + below:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    return frame.reformat(stream.width, stream.height, format="yuv420p", threads=1)


def _rate_of(container: InputContainer) -> Fraction:
    """Return the mean frame rate, a hint for the encoder."""
    rates = [stream.average_rate or stream.guessed_rate for stream in container.streams.video]
    return next((rate for rate in rates if rate), Fraction(_USUAL_RATE)).limit_denominator(10_000)


class _Sound:
    """Writes the sound of one file into another, in step with its pictures.

    `shift_s` is subtracted from all times; `lost` describes what changed or was lost.
    """

    def __init__(self, source: InputContainer, target: OutputContainer, shift_s: float) -> None:
        self.lost: list[str] = []
        self._target, self._shift_s = target, shift_s
        # By source stream index: the target stream, and whether it is copied.
        self._streams: dict[int, tuple[AudioStream, bool]] = {}
        self._names: dict[int, str] = {}
        self._next_stamps: dict[int, int] = {}  # by stream index: the smallest that may follow
        self._joined = may_be_joined(source)
        for stream in source.streams.audio:
            self._add(stream)
        streams = [stream for stream in source.streams.audio if stream.index in self._streams]
        self._packets = self._read(source, streams) if streams else iter(())
        self._waiting = next(self._packets, None)

    def write_until(self, time_s: float | None) -> None:
        """Write the sound before `time_s`; None writes all the rest."""
        while self._waiting is not None:
            packet = self._waiting
            if time_s is not None and _decoding_time_s(packet) - self._shift_s > time_s:
                return
            self._write(packet)
            self._waiting = next(self._packets, None)
        if time_s is None:
            for number, (stream, copied) in self._streams.items():
                if not copied:
                    self._finish(number, stream)

    def _finish(self, number: int, stream: AudioStream) -> None:
        """Flush the encoder, and describe what became of the sound."""
        name = self._names[number]
        if number not in self._next_stamps:
            self.lost.append(f"the sound ({name}) cannot be decoded: left out")
            return
        self._target.mux(stream.encode(None))
        self.lost.append(f"the sound ({name}) was encoded anew as AAC, which players of mp4 know")

    def _add(self, stream: AudioStream) -> None:
        context = stream.codec_context
        name = "of an unknown kind" if context is None else context.codec.canonical_name
        self._names[stream.index] = name
        if name in _COPIED and _can_copy(stream):
            self._streams[stream.index] = self._target.add_stream_from_template(stream), True
            return
        try:
            rate = context.sample_rate if 8000 <= context.sample_rate <= 96_000 else 48_000
            layout = "mono" if context.channels == 1 else "stereo"  # supported by all players
            if context.channels == 0:
                raise ValueError("its header is damaged")
            own = self._target.add_stream("aac", rate=rate, layout=layout)
        except (AttributeError, ValueError, av.FFmpegError):
            self.lost.append(f"the sound ({name}) cannot be decoded: left out")
            return
        self._streams[stream.index] = own, False

    def _read(self, source: InputContainer, streams: list[AudioStream]) -> Iterator[av.Packet]:
        """Yield packets with a clock that continues at jumps, as that of the pictures does."""
        clocks = {stream.index: Clock(self._joined) for stream in streams}
        origins_s: dict[int, float] = {}
        ends_s = dict.fromkeys(clocks, 0.0)
        try:
            for packet in source.demux(streams):
                if packet.dts is None and packet.pts is None:  # includes the final empty packet
                    continue
                packet.dts = packet.pts if packet.dts is None else packet.dts
                packet.pts = packet.dts if packet.pts is None else packet.pts
                number, stamp_s = packet.stream.index, _decoding_time_s(packet)
                time_s = clocks[number].elapsed(stamp_s, ends_s[number])
                ends_s[number] = time_s + float((packet.duration or 0) * packet.time_base)
                origin_s = origins_s.setdefault(number, stamp_s - time_s)
                _shift(packet, origin_s - (stamp_s - time_s))
                yield packet
        except IndexError:  # see VideoReader
            return
        except av.FFmpegError as error:
            self.lost.append(f"the sound breaks off: {error.strerror}")

    def _write(self, packet: av.Packet) -> None:
        number = packet.stream.index
        if number not in self._streams:
            return
        stream, copied = self._streams[number]
        try:
            if copied:
                self._copy(packet, stream)
            else:
                self._encode(packet, stream)
        except av.FFmpegError as error:
            self.lost.append(f"the sound breaks off: {error.strerror}")
            del self._streams[number]

    def _copy(self, packet: av.Packet, stream: AudioStream) -> None:
        number = packet.stream.index
        _shift(packet, -self._shift_s)
        stamp = packet.dts or 0
        late = max(self._next_stamps.get(number, stamp) - stamp, 0)
        packet.dts, packet.pts = stamp + late, (packet.pts or 0) + late
        self._next_stamps[number] = packet.dts + 1
        packet.stream = stream
        self._target.mux(packet)

    def _encode(self, packet: av.Packet, stream: AudioStream) -> None:
        number = packet.stream.index
        try:
            frames = packet.decode()
        except av.FFmpegError:
            return  # one damaged packet is only a click
        for frame in frames:
            if not isinstance(frame, av.AudioFrame):
                continue
            start = frame.pts or 0
            if frame.pts is not None and frame.time_base:
                start -= round(self._shift_s / frame.time_base)
                frame.pts = start = max(start, self._next_stamps.get(number, start))
                start += round(frame.samples / frame.sample_rate / frame.time_base)
            self._next_stamps[number] = start
            self._target.mux(stream.encode(frame))


def _decoding_time_s(packet: av.Packet) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _shift(packet: av.Packet, shift_s: float) -> None:
    shift = round(shift_s / packet.time_base)
    packet.dts, packet.pts = (packet.dts or 0) + shift, (packet.pts or 0) + shift


def _can_copy(stream: AudioStream) -> bool:
    """Return whether mp4 accepts the sound unchanged, which needs a complete header."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True
