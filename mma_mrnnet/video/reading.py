"""Read a video file as a stream of upright RGB frames with times."""

import contextlib
import logging
import math
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorTrc
from av.video.stream import VideoStream

from mma_mrnnet.video.timeline import Clock, PacketExtent, Timeline, announced_s, may_be_joined

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES: frozenset[str] = frozenset({
    ".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v",
    ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts", ".ts", ".gif",
})  # fmt: skip

TIME_TOLERANCE_S = 0.001  # containers round: Matroska stores 1/30 s as 0.033 s
MOST_PIXELS = 2**26
"""Default limit of a frame or photo, 8192 x 8192 pixels (our choice): twice an 8K frame, and
200 MB as RGB. Larger ones are refused before they are decoded.
"""

_ACCEPTED = "accepted are video files such as .mp4, .mov, .mkv, .webm, .avi or .mpg"
_DAMAGED_IN_A_ROW = 100  # packets; after that, reading stops
_DAMAGE_LASTS_S = 10.0  # at most, in streams without key frames (our choice)
_MOST_B_FRAMES = 4  # shown before a frame they are predicted from, in usual encodings
_MOST_WAITING = 256  # packets without a frame so far
_MOST_RANGES = 3  # of damaged frames in a note
_PAUSE_S = 60.0  # a longer time without a picture is noted (our choice)
_PHOTO = "this is a photo: the intensities are made for clips"
_LARGEST_STRETCH = 4  # a pixel aspect ratio above 4:1 means a broken header
# FFmpeg renders plain text as video, and follows lists to other files, or a live one forever.
_LISTS = (b"#EXTM3U", b"ffconcat")
_CONTROL_BYTES = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_HDR = frozenset({ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67})  # PQ, HLG


class VideoError(ValueError):
    """A file that cannot be read as a video; the message starts with its path."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded frame, (H, W, 3) uint8 RGB, upright, with square pixels.

    Attributes:
        time_s: seconds since the file's first frame; never decreases.
        index: number among all decoded frames in presentation order, from 0.
        due: one flag per requested rate; (True,) if no rate was requested.
        damaged: data of this frame, or of one that it was predicted from, was lost.
    """

    image: np.ndarray
    time_s: float
    index: int
    due: tuple[bool, ...]
    damaged: bool = False


class FrameClock:
    """Decides which frames to keep at a rate: the first one at or after each k / fps.

    A frame is kept at most once. Ticks in a gap are dropped: a frame that is shown for seconds
    counts once. `fps` None keeps every frame. Raises ValueError unless `fps` is finite and > 0.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None:
            check_rate(fps)
        self.fps = fps
        # A third of a tick keeps two ticks apart at rates above 333 a second.
        self._tolerance_s = TIME_TOLERANCE_S if fps is None else min(TIME_TOLERANCE_S, 1 / fps / 3)
        self._next_tick = 0

    def keeps(self, time_s: float) -> bool:
        """Return whether to keep the frame at `time_s`; call it once per frame, in order."""
        if self.fps is None:
            return True
        if time_s < self._next_tick / self.fps - self._tolerance_s:
            return False
        passed = math.floor((time_s + self._tolerance_s) * self.fps)
        self._next_tick = max(self._next_tick, passed) + 1
        return True


class VideoReader:
    """The frames of a video file that are due at any of the rates, in presentation order.

    Each iteration opens the file and decodes it once from the start; it holds no frames. If the
    file's clock jumps, as in joined recordings, time continues without a gap. HDR (PQ, HLG) is
    converted to SDR. A truncated .mpg or .ts file may go unnoticed.

    Args:
        path: the video file.
        *rates: frames per second, None for every frame; default: one None.
        threads: decoder threads; 0 lets FFmpeg choose.
        max_pixels: a file with a larger frame is refused before it is decoded.

    Attributes:
        frames_decoded: frames decoded so far, kept or not.
        duration_s: end of the last decoded frame, since the start of the first.
        announced_s: length by the file's header; None before the first frame or without one.
        warning: what was lost or is unusual, or None; set when the iteration ends.
        start_s: time of the first frame on the file's clock, which the sound shares.
        time_base: seconds per tick of that clock; None before the first frame or without one.

    Raises:
        VideoError: the file is missing or unreadable (at once); it has no video, or a frame is
            too large (when iterating).
        ValueError: a rate is not a finite number > 0.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *rates: float | None,
        threads: int = 1,
        max_pixels: int = MOST_PIXELS,
    ) -> None:
        self.path = Path(path)
        self.rates = rates or (None,)
        self.threads = threads
        self.max_pixels = max_pixels
        self._restart()
        _check_file(self.path)

    def _restart(self) -> None:
        self.frames_decoded: int = 0
        self.duration_s: float = 0.0
        self.announced_s: float | None = None
        self.warning: str | None = None
        self.start_s: float = 0.0
        self.time_base: Fraction | None = None
        self._clocks = [FrameClock(fps) for fps in self.rates]
        self._lost_packets = 0  # packets that could not be read or decoded
        self._lost_in_a_row = 0  # such packets since the last good one
        self._reason = ""
        self._hdr_as_sdr = False
        self._others_end_s = -math.inf  # end of the sound, on the file's clock

    def __iter__(self) -> Iterator[VideoFrame]:
        self._restart()
        with open_container(self.path) as container:
            stream, other_tracks = choose_stream(self.path, container)
            self._check_size(stream.width, stream.height)
            stream.codec_context.thread_count = self.threads
            stream.codec_context.thread_type = "NONE" if self.threads == 1 else "AUTO"
            # Decoders count padding too: the exact check is made on each frame.
            stream.codec_context.options = {"max_pixels": str(2 * self.max_pixels)}
            whole_s = (container.duration or 0) / av.time_base
            self.announced_s = announced_s(container, stream) or whole_s or None
            timeline = Timeline(stream, may_be_joined(container))
            damage = _Damage()
            for frame, damaged in damage.follow(self._decode(container, stream, damage)):
                time_s, index = timeline.place(frame), self.frames_decoded
                self.frames_decoded, self.duration_s = index + 1, timeline.end_s
                self.start_s, self.time_base = timeline.start_s or 0.0, frame.time_base
                if damaged:
                    damage.note(time_s, timeline.end_s)
                due = tuple(clock.keeps(time_s) for clock in self._clocks)
                if any(due):
                    image = self._to_rgb(frame, stream.sample_aspect_ratio)
                    yield VideoFrame(image, time_s, index, due, damaged)
            notes = [
                self._describe_loss(container, stream),
                damage.describe(self.frames_decoded),
                _describe_jumps(timeline.jumps),
                _describe_pause(*timeline.longest_pause_s),
                _PHOTO if container.format.name.endswith("_pipe") else None,
                other_tracks,
            ]
        if self._hdr_as_sdr:
            notes.append("HDR (PQ or HLG) could not be converted and was read as SDR")
        self.warning = "; ".join(note for note in notes if note) or None
        if self.warning:
            logger.warning("%s: %s", self.path, self.warning)

    def _decode(
        self, container: InputContainer, stream: VideoStream, damage: "_Damage"
    ) -> Iterator[av.VideoFrame]:
        """Yield all frames that can be decoded; count and skip damaged packets."""
        # If only the whole file has a length, the end of the sound shows a truncation.
        only_whole = announced_s(container, stream) == 0 and not may_be_joined(container)
        streams = [stream, *(container.streams.audio if only_whole else ())]
        packets = container.demux(streams)
        while self._lost_in_a_row < _DAMAGED_IN_A_ROW:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if packet.stream.index != stream.index:
                    self._note_sound(packet)
                    continue
                damage.add(packet)
                frames = packet.decode()
            except IndexError:  # PyAV 18 after the last packet, if a stream appeared late
                return
            except MemoryError:
                raise self._too_large(stream.width, stream.height, "memory") from None
            except av.FFmpegError as error:
                context = stream.codec_context
                self._check_size(context.width, context.height)
                self._lost_packets += 1
                self._lost_in_a_row += 1
                self._reason = _reason(error)
                packets = container.demux(streams)  # a generator that raised cannot go on
                continue
            if packet.size:  # the last, empty packet only returns delayed frames
                self._lost_in_a_row = 0
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    self._check_size(frame.width, frame.height)
                    yield frame

    def _note_sound(self, packet: av.Packet) -> None:
        if packet.size and packet.pts is not None and packet.time_base is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._others_end_s = max(self._others_end_s, end_s)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise self._too_large(width, height, f"{self.max_pixels:,} pixels (max_pixels)")

    def _too_large(self, width: int, height: int, limit: str) -> VideoError:
        return VideoError(f"{self.path}: a frame of {width} x {height} is larger than {limit}")

    def _to_rgb(self, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB in its own memory, upright, with square pixels."""
        width, height = _square_pixel_size(frame.width, frame.height, pixel_aspect)
        self._check_size(width, height)
        try:
            image = self._convert(frame, width, height)
            return np.array(_turn_upright(image, _display_matrix(frame)), order="C")
        except MemoryError:
            raise self._too_large(width, height, "memory") from None
        except (av.FFmpegError, ValueError) as error:
            what = f"pixels of format {frame.format.name} cannot be turned into RGB"
            raise _video_error(self.path, f"{what} ({_reason(error)})") from error

    def _convert(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        plain: dict[str, Any] = {"format": "rgb24", "width": width, "height": height}
        if frame.color_trc in _HDR or frame.color_primaries == ColorPrimaries.BT2020:
            sdr = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
            try:
                return _reformat(frame, **plain, **sdr)
            except (av.FFmpegError, ValueError, TypeError):  # TypeError: an older PyAV
                self._hdr_as_sdr = True
        return _reformat(frame, **plain)

    def _describe_loss(self, container: InputContainer, stream: VideoStream) -> str | None:
        """Describe what a damaged file lost; raise VideoError if nothing was decoded."""
        if self.frames_decoded == 0:
            reason = f" ({self._reason})" if self._reason else ""
            raise _video_error(
                self.path, f"has a video stream, but not one frame can be decoded{reason}"
            )
        stopped = f"decoding stopped after {self.frames_decoded} frames ({self.duration_s:.1f} s)"
        if self._lost_in_a_row:
            return f"{stopped}: {self._reason}"
        expected_s, found_s = announced_s(container, stream), self.duration_s
        if expected_s == 0 and container.duration is not None and self._others_end_s > -math.inf:
            # Only the whole file has a length: pictures or sound must be that long.
            expected_s = container.duration / av.time_base
            start_s = (container.start_time or 0) / av.time_base
            found_s = max(self.start_s + self.duration_s, self._others_end_s) - start_s
        # Headers are rounded, and the last frame's length is estimated.
        if expected_s - found_s > max(0.5, 0.1 * expected_s):
            return f"{stopped}: the file ends, its header announces {expected_s:.1f} s"
        if self._lost_packets:
            return f"skipped {self._lost_packets} damaged packets: {self._reason}"
        return None


class _Damage:
    """Tracks which frames were decoded from damaged data, by marks of demuxer and decoder.

    All frames up to the next key frame may be predicted from them, and count as damaged.
    """

    def __init__(self) -> None:
        self._clock = Clock(joined=True)
        self._packets_since_s: float | None = None  # start of the damage by packets; None if intact
        self._frames_since_s: float | None = None  # the same by frames
        # Packets without a frame so far, by stamp, in decoding order; True if damaged.
        self._packets: dict[int, bool] = {}
        self._last: deque[int] = deque(maxlen=_MOST_B_FRAMES + 1)  # stamps of the last packets
        self._ranges: list[tuple[float, float]] = []
        self._count = 0

    def add(self, packet: av.Packet) -> None:
        """Take the next packet, in decoding order."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if not packet.size or stamp is None or packet.time_base is None:
            return
        jumps_before = len(self._clock.jumps)
        time_s = self._clock.elapsed(float(stamp * packet.time_base), self._clock.last_s)
        jumps = len(self._clock.jumps) > jumps_before
        if (jumps or packet.is_keyframe) and not packet.is_corrupt and self._last:
            # Packet counters restart where recordings are joined, which marks the packets before
            # as damaged although nothing is lost. The decoder reports real loss.
            before, *last = self._last
            if not self._packets.get(before, False):
                self._packets |= {stamp: False for stamp in last if stamp in self._packets}
                self._packets_since_s = None
        if packet.is_corrupt:
            self._packets_since_s = time_s
        elif packet.is_keyframe or _is_over(self._packets_since_s, time_s):
            self._packets_since_s = None
        if packet.pts is not None:
            self._packets.pop(packet.pts, None)
            self._packets[packet.pts] = self._packets_since_s is not None
            self._last.append(packet.pts)
        while len(self._packets) > _MOST_WAITING:  # their frames never came
            del self._packets[next(iter(self._packets))]

    def follow(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, bool]]:
        """Yield (frame, whether it is damaged) in presentation order.

        A few frames are held back, since a frame may be shown before one that it is predicted from.
        """
        held: deque[av.VideoFrame] = deque()
        for frame in frames:
            if frame.is_corrupt:
                self._mark_later_packets(frame, held)
            held.append(frame)
            if len(held) > _MOST_B_FRAMES:
                yield self._release(held.popleft())
        while held:
            yield self._release(held.popleft())

    def _mark_later_packets(self, frame: av.VideoFrame, held: Iterable[av.VideoFrame]) -> None:
        """Mark the held frames that were decoded after a damaged one."""
        orders = {stamp: order for order, stamp in enumerate(self._packets)}
        start = math.inf if frame.pts is None else orders.get(frame.pts, math.inf)
        for other in held:
            if other.pts is not None and orders.get(other.pts, -1) > start:
                self._packets[other.pts] = True

    def _release(self, frame: av.VideoFrame) -> tuple[av.VideoFrame, bool]:
        time_s = float((frame.pts or 0) * (frame.time_base or 0))
        if frame.is_corrupt:
            self._frames_since_s = time_s
        elif frame.key_frame or _is_over(self._frames_since_s, time_s):
            self._frames_since_s = None
        by_packet = frame.pts is not None and self._packets.pop(frame.pts, False)
        return frame, by_packet or self._frames_since_s is not None

    def note(self, time_s: float, end_s: float) -> None:
        """Count a damaged frame for the description."""
        self._count += 1
        if self._ranges and time_s <= self._ranges[-1][1] + TIME_TOLERANCE_S:
            self._ranges[-1] = self._ranges[-1][0], end_s
        else:
            self._ranges.append((time_s, end_s))

    def describe(self, frames: int) -> str | None:
        """Describe how many frames are damaged, and when; None if none is."""
        if not self._count:
            return None
        times = [f"{start:.1f}-{end:.1f} s" for start, end in self._ranges[:_MOST_RANGES]]
        more = " and later" if len(self._ranges) > _MOST_RANGES else ""
        return (
            f"{self._count} of {frames} frames are damaged ({', '.join(times)}{more}) and count as "
            "frames without a face"
        )


def _is_over(since_s: float | None, time_s: float) -> bool:
    return since_s is not None and not 0 <= time_s - since_s <= _DAMAGE_LASTS_S


def read_frames(
    path: str | os.PathLike[str],
    *rates: float | None,
    threads: int = 1,
    max_pixels: int = MOST_PIXELS,
) -> VideoReader:
    """Stream the frames of a video that are due at any of the rates; see `VideoReader`.

    After `for frame in (reader := read_frames("clip.mp4", 2.0)): ...`, `reader.duration_s` is the
    length, and `reader.warning` says what was lost.
    """
    return VideoReader(path, *rates, threads=threads, max_pixels=max_pixels)


@dataclass(frozen=True)
class VideoExtent:
    """Size in pixels, length and number of packets of a video.

    `duration_s` is the longer of header and packet times; the clock may jump, as in `VideoReader`.
    """

    duration_s: float
    packets: int
    width: int
    height: int


def measure_video(path: str | os.PathLike[str]) -> VideoExtent:
    """Measure a video by reading every packet without decoding; raise VideoError on failure.

    The header alone may be wrong, or have no length (recordings of browsers).
    """
    path = Path(path)
    with open_container(path) as container:
        stream, _ = choose_stream(path, container)
        extent = _measure(container, [stream])[stream.index]
        duration_s = max(extent.duration_s, announced_s(container, stream))
        return VideoExtent(duration_s, extent.packets, stream.width, stream.height)


def _measure(container: InputContainer, streams: Sequence[VideoStream]) -> dict[int, PacketExtent]:
    """Return the packets' extent by stream index."""
    joined = may_be_joined(container)
    extents = {stream.index: PacketExtent(joined) for stream in streams}
    # The decoder reports damaged packets.
    with contextlib.suppress(av.FFmpegError, IndexError):
        for packet in container.demux(streams):
            extents[packet.stream.index].add(packet)
    return extents


def open_container(path: Path) -> InputContainer:
    """Open a file without any access to the network; raise VideoError if FFmpeg cannot read it."""
    _check_file(path)
    try:
        return av.open(
            f"file:{path}",  # a colon in the name is no protocol
            options={
                "protocol_whitelist": "file",  # no network for files that name others
                "correct_ts_overflow": "0",  # else a jump back becomes 26.5 hours
            },
            metadata_errors="replace",  # titles in old encodings are common
        )
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise _video_error(path, f"is no video that can be read ({_reason(error)})") from error


def choose_stream(path: Path, container: InputContainer) -> tuple[VideoStream, str | None]:
    """Return the video stream to read, and a note if there are others.

    Cover pictures, thumbnails and, beside longer streams, single pictures are ignored. The default
    stream wins; of several, the longest. Raises VideoError if none can be decoded.
    """
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        found = found.replace("video", "a cover picture")
        raise _video_error(path, f"holds no video stream (found: {found})")
    chosen, note = streams[0], None
    if len(streams) > 1:
        numbers = {stream.index for stream in streams}
        # Opened again: the caller still needs this container's packets.
        with open_container(path) as other:
            extents = _measure(other, [s for s in other.streams.video if s.index in numbers])
        chosen = max(streams, key=lambda stream: _rank_stream(stream, extents[stream.index]))
        note = (
            f"the file has {len(streams)} picture tracks; track {streams.index(chosen) + 1} "
            f"({chosen.width} x {chosen.height}) was read"
        )
    if chosen.codec_context is None:
        raise _video_error(path, "its video stream is in a format for which there is no decoder")
    return chosen, note


def _rank_stream(stream: VideoStream, extent: PacketExtent) -> tuple[bool, bool, bool, float]:
    is_default = bool(stream.disposition & Disposition.default)
    readable = stream.codec_context is not None
    return readable, extent.packets > 1, is_default, round(extent.duration_s, 1)


def check_rate(fps: float) -> None:
    """Raise ValueError unless `fps` is a finite number > 0."""
    if not (isinstance(fps, Real) and math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a finite number above 0, got {fps!r}")


def _describe_pause(start_s: float, end_s: float) -> str | None:
    if end_s - start_s <= _PAUSE_S:
        return None
    return f"no picture from {start_s:,.1f} to {end_s:,.1f} s"


def _describe_jumps(jumps: list[tuple[float, float]]) -> str | None:
    if not jumps:
        return None
    time_s, size_s = jumps[0]
    times = "once" if len(jumps) == 1 else f"{len(jumps)} times, first"
    return (
        f"the file's clock jumps {times} at {time_s:.1f} s, by {size_s:+,.1f} s: "
        "joined recordings, read as one"
    )


def _video_error(path: Path, what: str) -> VideoError:
    # One argument, so that the error can be pickled by a worker process.
    return VideoError(f"{path}: {what}; {_ACCEPTED}")


def _check_file(path: Path) -> None:
    """Refuse files that would block or mislead the decoder: named pipes, lists, plain text."""
    try:
        status = path.stat()
        head = b""
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                head = file.read(1024)
    except FileNotFoundError:
        raise _video_error(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise _video_error(path, f"cannot be read ({_reason(error)})") from error
    if stat.S_ISDIR(status.st_mode):
        raise _video_error(path, "is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise _video_error(path, "is a device or pipe, not a file")
    if status.st_size == 0:
        raise _video_error(path, "is empty (0 bytes)")
    is_binary = _CONTROL_BYTES.intersection(head) or head.startswith(b"YUV4MPEG2")
    if head.startswith(_LISTS) or not is_binary:
        raise _video_error(path, "is text, not a video")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _reformat(frame: av.VideoFrame, **settings: Any) -> np.ndarray:
    return frame.reformat(threads=1, **settings).to_ndarray()


def _square_pixel_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return the size with square pixels; the short side grows, so no detail is lost."""
    if not pixel_aspect or not 1 / _LARGEST_STRETCH <= pixel_aspect <= _LARGEST_STRETCH:
        return width, height
    if pixel_aspect > 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return (a, b, c, d): (x, y) is shown at (a x + c y, b x + d y), by ISO 14496-12."""
    try:
        matrix = np.frombuffer(
            frame.side_data["DISPLAYMATRIX"],  # type: ignore[typeddict-item]  # missing in the stub
            np.int32,
        )
    except KeyError:
        return 1, 0, 0, 1
    except ValueError:
        # PyAV 18 cannot list newer side data, such as a photo's Exif. `rotation`, in degrees
        # counter-clockwise, still works, but ignores mirroring.
        quarters = round(frame.rotation / 90) % 4
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[quarters]
    a, b, c, d = matrix[[0, 1, 3, 4]].tolist()
    return a, b, c, d


def _turn_upright(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror the image by the matrix, to the nearest quarter turn."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b  # (H, W, 3) -> (W, H, 3)
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
