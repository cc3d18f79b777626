"""RGB frames -> a video file: frames alone, or those of another video drawn on, with its times and its sound."""

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

from mma_mrnnet.video.reading import VideoFrame, check_rate, open_container, read_frames

_COPIED = frozenset({"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"})
"""Sound that players of mp4 know; FFmpeg would write more kinds into one than they play."""

_FINE_TICK = Fraction(1, 90_000)  # MPEG's, for files without a clock
_USUAL_RATE = 25


def write_video(path: str | os.PathLike[str], images: Iterable[np.ndarray], fps: float) -> Path:
    """Writes frames as an H.264 mp4 and returns its path; the file appears only when it is complete.

    Args:
        path: the file to write, replaced where it exists.
        images: (H, W, 3) uint8 RGB of one size; an odd side grows by a repeated row or column (yuv420p).
        fps: frames a second.

    Raises:
        ValueError: no image, an image of another shape or type, or fps not a finite number above 0.
    """
    check_rate(fps)
    path, images = Path(path), iter(images)
    first = next(images, None)
    if first is None:
        raise ValueError(f"{path}: a video needs at least one image, got none")
    temporary = _temporary(path)
    try:
        _encode(
            temporary,
            chain([first], images),
            np.shape(first),
            Fraction(fps).limit_denominator(10_000),
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def redraw_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    draw: Callable[[VideoFrame], np.ndarray],
) -> list[str]:
    """Writes a video's frames anew as `draw` gives them, as an H.264 mp4 that browsers play.

    Every frame of the source is there, at its own time, upright and with square pixels; the sound is copied packet by
    packet where players of mp4 know its kind, else encoded anew. Nothing is held but what the encoder looks ahead.

    Args:
        source: a video file as `read_frames` takes it.
        target: an .mp4 file, replaced where it exists; it appears only when it is complete.
        draw: a frame -> the (H, W, 3) uint8 RGB to be shown in its place; asked once a frame, in order.

    Returns:
        What was lost on the way, in words; empty where nothing was.

    Raises:
        VideoError: the source cannot be read as a video.
        ValueError: a target that is no .mp4, or is the source.
    """
    source, target = Path(source), Path(target)
    check_target(source, target)
    temporary = _temporary(target)
    try:
        lost = _redraw(source, temporary, draw)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return lost


def check_target(source: Path, target: Path) -> None:
    """Raises ValueError where `redraw_video` could not write, before any work."""
    if target.suffix.lower() != ".mp4":
        raise ValueError(
            f"{target}: a video is written as .mp4; got {target.suffix or 'no ending'!r}"
        )
    if not target.absolute().parent.is_dir():
        raise ValueError(f"{target}: the folder {target.absolute().parent} does not exist")
    if target.is_dir():
        raise ValueError(f"{target}: is a folder, not a file to write")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{target}: is the clip itself, which is never written over")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _encode(
    path: Path, images: Iterable[np.ndarray], shape: tuple[int, ...], rate: Fraction
) -> None:
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"images must be uint8 (H, W, 3), got shape {shape}")
    with _mp4(path) as container:
        stream = _picture_stream(container, shape, rate, {"crf": "18"})
        for index, image in enumerate(images):
            if image.dtype != np.uint8 or image.shape != shape:
                came = f"{image.dtype} {image.shape} at number {index}"
                raise ValueError(
                    f"images must be uint8, all of the first one's shape {shape}, got {came}"
                )
            frame = _yuv(image, stream)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _redraw(source: Path, path: Path, draw: Callable[[VideoFrame], np.ndarray]) -> list[str]:
    """What `redraw_video` does, to a path that is nobody's yet."""
    reader = read_frames(source)
    frames = iter(reader)
    with ExitStack() as stack:
        first = next(frames)  # or VideoError: a file without a frame ends in one
        container = stack.enter_context(_mp4(path))
        listened = stack.enter_context(open_container(source))
        unit = reader.time_base or _FINE_TICK
        # Without B-frames a frame is stored with its own length, also where the rate varies.
        options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        stream = _picture_stream(container, first.image.shape, _rate_of(listened), options)
        stream.codec_context.time_base = unit
        stream.codec_context.flags |= (
            Flags.frame_duration
        )  # else the last one is as long as the one before
        shift_s = (listened.start_time or 0) / av.time_base
        sound = _Sound(listened, container, shift_s)
        pts = None
        for frame in chain([first], frames):
            time_s = reader.start_s - shift_s + frame.time_s
            sound.write_until(time_s)
            image = _yuv(draw(frame), stream)
            # Two frames of one time, which a damaged file may have, come a tick apart.
            pts = round(time_s / unit) if pts is None else max(round(time_s / unit), pts + 1)
            image.pts, image.time_base = pts, unit
            image.duration = max(round((reader.duration_s - frame.time_s) / unit), 1)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
        sound.write_until(None)
    return [part for part in (reader.warning, *sound.lost) if part]


def _mp4(path: Path) -> OutputContainer:
    return av.open(f"file:{path}", "w", format="mp4", options={"movflags": "faststart"})


def _picture_stream(
    container: OutputContainer, shape: tuple[int, ...], rate: Fraction, options: dict[str, str]
) -> VideoStream:
    """An H.264 stream of (H, W, 3) images; an odd side grows by one, as yuv420p needs."""
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = (side + side % 2 for side in shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1  # the same file on every machine
    stream.codec_context.colorspace = (
        Colorspace.ITU601
    )  # what `reformat` makes; players guess by size
    return stream


def _yuv(image: np.ndarray, stream: VideoStream) -> av.VideoFrame:
    """An image as the encoder takes it; one of another size than the first is stretched to that."""
    right, below = stream.width - image.shape[1], stream.height - image.shape[0]
    if {right, below} <= {0, 1} and right + below:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    return frame.reformat(stream.width, stream.height, format="yuv420p", threads=1)


def _rate_of(container: InputContainer) -> Fraction:
    """Frames a second on average, for the encoder's planning alone; the times are the frames' own."""
    rates = [stream.average_rate or stream.guessed_rate for stream in container.streams.video]
    return next((rate for rate in rates if rate), Fraction(_USUAL_RATE)).limit_denominator(10_000)


class _Sound:
    """The sound of a file on its way into another, as far as the pictures have come.

    Args:
        source: where it comes from.
        target: where it goes; its streams are added here, before anything is written.
        shift_s: taken from all times.

    Attributes:
        lost: what could not be kept as it was, in words.
    """

    def __init__(self, source: InputContainer, target: OutputContainer, shift_s: float) -> None:
        self.lost: list[str] = []
        self._target, self._shift_s = target, shift_s
        self._streams: dict[
            int, tuple[AudioStream, bool]
        ] = {}  # by number in the source: theirs here, and if copied
        self._next_dts: dict[int, int] = {}
        for stream in source.streams.audio:
            self._add(stream)
        streams = [source.streams[number] for number in self._streams]
        self._packets = self._read(source, streams) if streams else iter(())
        self._waiting = next(self._packets, None)

    def write_until(self, time_s: float | None) -> None:
        """Writes what lies before that time; all that is left for None."""
        while self._waiting is not None:
            packet = self._waiting
            if time_s is not None and packet.dts * packet.time_base - self._shift_s > time_s:
                return
            self._write(packet)
            self._waiting = next(self._packets, None)
        if time_s is None:
            for stream, copied in self._streams.values():
                if not copied:
                    self._target.mux(stream.encode(None))

    def _add(self, stream: AudioStream) -> None:
        name = (
            "of an unknown kind"
            if stream.codec_context is None
            else stream.codec_context.codec.canonical_name
        )
        if name in _COPIED:
            self._streams[stream.index] = self._target.add_stream_from_template(stream), True
            return
        try:
            rate = stream.codec_context.sample_rate
            fits = 8000 <= rate <= 96_000
            own = self._target.add_stream(
                "aac", rate=rate if fits else 48_000, layout=_layout(stream)
            )
        except (AttributeError, ValueError, av.FFmpegError):
            self.lost.append(f"the sound ({name}) cannot be decoded: left out")
            return
        self._streams[stream.index] = own, False
        self.lost.append(f"the sound ({name}) was encoded anew as AAC, which players of mp4 know")

    def _read(self, source: InputContainer, streams: list[AudioStream]) -> Iterator[av.Packet]:
        try:
            for packet in source.demux(streams):
                if packet.dts is None and packet.pts is None:  # also the empty one at the end
                    continue
                packet.dts = packet.pts if packet.dts is None else packet.dts
                packet.pts = packet.dts if packet.pts is None else packet.pts
                yield packet
        except (IndexError, av.FFmpegError) as error:  # IndexError: see VideoReader
            if isinstance(error, av.FFmpegError):
                self.lost.append(f"the sound breaks off: {error.strerror}")

    def _write(self, packet: av.Packet) -> None:
        number = packet.stream.index
        stream, copied = self._streams[number]
        if not copied:
            self._encode(packet, stream)
            return
        shift = round(self._shift_s / packet.time_base)
        # A clock that falls back, where recordings were joined, goes on where it was.
        late = max(self._next_dts.get(number, packet.dts - shift) - (packet.dts - shift), 0)
        packet.dts, packet.pts = packet.dts - shift + late, packet.pts - shift + late
        self._next_dts[number] = packet.dts + 1
        packet.stream = stream
        self._target.mux(packet)

    def _encode(self, packet: av.Packet, stream: AudioStream) -> None:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            return  # one damaged packet is a click, not the end
        for frame in frames:
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(self._shift_s / frame.time_base)
            self._target.mux(stream.encode(frame))


def _layout(stream: AudioStream) -> str:
    """Stereo for what has more than one channel: all players have it."""
    return "mono" if stream.codec_context.channels == 1 else "stereo"
