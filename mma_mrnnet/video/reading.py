"""A video file as a stream of upright RGB frames with their times. It knows neither faces nor tensors."""

import contextlib
import logging
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES: frozenset[str] = frozenset({
    ".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v",
    ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts", ".ts", ".gif",
})  # fmt: skip

_ACCEPTED = "accepted are video files such as .mp4, .mov, .mkv, .webm, .avi or .mpg"
TIME_TOLERANCE_S = 0.001  # containers round: Matroska to 1 ms, so 1/30 s is stored as 0.033 s
_CLOCK_RESTART_S = (
    1.0  # stamps that fall back further than this come from a new clock, not from jitter
)
_DAMAGED_IN_A_ROW = 100  # packets; beyond this nothing readable is expected to follow
_LARGEST_STRETCH = 4  # a pixel aspect ratio beyond 4:1 is a broken header
_DEFAULT_RATE = Fraction(25)  # FFmpeg's own for files without any time
# FFmpeg draws plain text as video, and follows lists to other files, a live one without end: no clips.
_LISTS = (b"#EXTM3U", b"ffconcat")
_CONTROL_BYTES = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


class VideoError(ValueError):
    """A file that cannot be read as a video; the message starts with its path."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded frame.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright, with square pixels.
        time_s: seconds since the first frame of the file, never smaller than the frame before's.
        index: number among all decoded frames in presentation order, from 0.
        due: one flag for each rate that was asked, in that order; (True,) where none was asked.
    """

    image: np.ndarray
    time_s: float
    index: int
    due: tuple[bool, ...]


class FrameClock:
    """Decides which frames are kept at a rate: the first one at or after each k / fps, k = 0, 1, ...

    A frame is kept at most once, and after a gap the ticks that passed without a frame are dropped.

    Args:
        fps: frames a second to keep, a finite number above 0, else ValueError; None keeps every frame.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None:
            check_rate(fps)
        self.fps = fps
        self._next_tick = 0

    def keeps(self, time_s: float) -> bool:
        """Whether the frame at `time_s` is kept; frames must come in order, each asked once."""
        if self.fps is None:
            return True
        if time_s < self._next_tick / self.fps - TIME_TOLERANCE_S:
            return False
        passed = math.floor((time_s + TIME_TOLERANCE_S) * self.fps)
        self._next_tick = max(self._next_tick, passed) + 1
        return True


class VideoReader:
    """The frames of a video file that are due at any of the rates, streamed in presentation order.

    Iterating opens the file and decodes it once, from the start; only frames that are due are turned into
    RGB, and none is held. The file is closed when the iteration ends, fails, or is dropped half way. A cut
    that shows neither in a broken packet nor against a length in the header (.mpg, .ts) goes unnoticed.

    Args:
        path: the video file.
        *rates: frames a second to keep, each None for every frame; no rate at all is the same as one None.
        threads: decoder threads; 0 lets FFmpeg choose.

    Attributes:
        frames_decoded: number of frames decoded so far, kept or not.
        duration_s: end of the last decoded frame, in seconds since the start of the first.
        warning: what a damaged file lost, None where nothing was noticed; filled when the iteration ends.
        start_s: where the first frame lies on the file's own clock, on which its sound lies too; once it was decoded.
        time_base: seconds of one tick of that clock; None before, and where the file has no clock.

    Raises:
        VideoError: missing or unreadable file, at once; no video in it, when the iteration starts.
        ValueError: a rate is not a finite number above 0.
    """

    def __init__(
        self, path: str | os.PathLike[str], *rates: float | None, threads: int = 1
    ) -> None:
        self.path = Path(path)
        self.rates = rates or (None,)
        self.threads = threads
        self._restart()
        _check_file(self.path)

    def __iter__(self) -> Iterator[VideoFrame]:
        self._restart()
        with open_container(self.path) as container:
            stream = _video_stream(self.path, container)
            stream.codec_context.thread_count = self.threads
            stream.codec_context.thread_type = "NONE" if self.threads == 1 else "AUTO"
            timeline = _Timeline(stream)
            for frame in self._decode(container, stream):
                time_s, index = timeline.place(frame), self.frames_decoded
                self.frames_decoded, self.duration_s = index + 1, timeline.end_s
                self.start_s, self.time_base = timeline.start_s, frame.time_base
                due = tuple(clock.keeps(time_s) for clock in self._clocks)
                if any(due):
                    image = _to_rgb(self.path, frame, stream.sample_aspect_ratio)
                    yield VideoFrame(image, time_s, index, due)
            self._finish(_announced_s(container, stream))

    def _restart(self) -> None:
        self.frames_decoded = 0
        self.duration_s = 0.0
        self.warning: str | None = None
        self.start_s = 0.0
        self.time_base: Fraction | None = None
        self._clocks = [FrameClock(fps) for fps in self.rates]
        self._damaged = 0  # packets that could not be read or decoded ...
        self._damaged_in_a_row = 0  # ... and those since the last good one
        self._reason = ""

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """Every frame that decodes; damaged packets are counted and stepped over."""
        packets = container.demux(stream)
        while self._damaged_in_a_row < _DAMAGED_IN_A_ROW:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except (
                IndexError
            ):  # PyAV 18 after the last packet, where a stream appeared late in the file
                return
            except av.FFmpegError as error:
                self._damaged += 1
                self._damaged_in_a_row += 1
                self._reason = _reason(error)
                packets = container.demux(
                    stream
                )  # a generator that raised is over; the file goes on
                continue
            if packet.size:  # the last, empty packet only draws out delayed frames
                self._damaged_in_a_row = 0
            yield from frames

    def _finish(self, announced_s: float) -> None:
        """Raises where nothing was decoded; notes and logs what was lost of a damaged file."""
        if self.frames_decoded == 0:
            reason = f" ({self._reason})" if self._reason else ""
            raise _video_error(
                self.path, f"has a video stream, but not one frame can be decoded{reason}"
            )
        stopped = f"decoding stopped after {self.frames_decoded} frames ({self.duration_s:.1f} s)"
        missing_s = announced_s - self.duration_s
        if self._damaged_in_a_row:
            self.warning = f"{stopped}: {self._reason}"
        elif missing_s > max(
            0.5, 0.1 * announced_s
        ):  # headers round, and the last frame's length is a guess
            self.warning = f"{stopped}: the file ends, its header announces {announced_s:.1f} s"
        elif self._damaged:
            self.warning = f"skipped {self._damaged} damaged packets: {self._reason}"
        if self.warning:
            logger.warning("%s: %s", self.path, self.warning)


def read_frames(
    path: str | os.PathLike[str], *rates: float | None, threads: int = 1
) -> VideoReader:
    """Streams the frames of a video that are due at any of the rates; see `VideoReader`.

    `for frame in (reader := read_frames("clip.mp4", 2.0)): ...` leaves the clip's length in
    `reader.duration_s` and what a damaged file lost in `reader.warning`.
    """
    return VideoReader(path, *rates, threads=threads)


@dataclass(frozen=True)
class VideoExtent:
    """How much there is to read in a file, by its header and its packets.

    Attributes:
        duration_s: the longer of what the header says and what the packets' time stamps span.
        packets: of the video stream; of nearly all formats one a frame.
        width: of the stored picture ...
        height: ... in pixels, as the header says.
    """

    duration_s: float
    packets: int
    width: int
    height: int


def measure_video(path: str | os.PathLike[str]) -> VideoExtent:
    """How much there is to read in a video; every packet is looked at and none decoded.

    A header alone will not do: a browser's recording has no length in it, and a header may say anything.

    Raises:
        VideoError: missing or unreadable file, or no video in it.
    """
    path = Path(path)
    with open_container(path) as container:
        stream = _video_stream(path, container)
        packets, first_s, end_s = 0, math.inf, -math.inf
        # What a damaged packet means is for whoever decodes the file to say.
        with contextlib.suppress(av.FFmpegError, IndexError):
            for packet in container.demux(stream):
                packets += packet.size > 0
                stamp = packet.dts if packet.pts is None else packet.pts
                if packet.size and stamp is not None:
                    first_s = min(first_s, float(stamp * packet.time_base))
                    end_s = max(end_s, float((stamp + (packet.duration or 0)) * packet.time_base))
        spanned_s = max(end_s - first_s, 0.0)
        return VideoExtent(
            max(spanned_s, _announced_s(container, stream)), packets, stream.width, stream.height
        )


def open_container(path: Path) -> InputContainer:
    """The file for reading, through no protocol but the file system; VideoError where it cannot be."""
    _check_file(path)
    try:
        return av.open(
            f"file:{path}",  # so that a colon in the name is not taken for a protocol
            options={
                "protocol_whitelist": "file"
            },  # a file that names others must not reach the network
            metadata_errors="replace",  # titles in old encodings are common
        )
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise _video_error(path, f"is no video that can be read ({_reason(error)})") from error


def check_rate(fps: float) -> None:
    """Raises ValueError unless a rate is a finite number above 0."""
    if not (isinstance(fps, Real) and math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a finite number above 0, got {fps!r}")


def _video_error(path: Path, what: str) -> VideoError:
    return VideoError(
        f"{path}: {what}; {_ACCEPTED}"
    )  # one argument, so that it survives a worker process


def _check_file(path: Path) -> None:
    """Refuses what the decoder must not see: a named pipe or a list of a live stream would block for ever."""
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
    if head.startswith(_LISTS) or not (
        _CONTROL_BYTES.intersection(head) or head.startswith(b"YUV4MPEG2")
    ):
        raise _video_error(path, "is text, not a video")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The first stream of moving pictures; the cover picture of an audio file is none."""
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        found = found.replace("video", "a cover picture")
        raise _video_error(path, f"holds no video stream (found: {found})")
    if streams[0].codec_context is None:
        raise _video_error(path, "its video stream is in a format for which there is no decoder")
    return streams[0]


def _announced_s(container: InputContainer, stream: VideoStream) -> float:
    """How long the header says the video is, 0 where it does not say or speaks of other streams too."""
    lengths = []
    if stream.duration is not None and stream.time_base is not None:
        lengths.append(float(stream.duration * stream.time_base))
    if container.duration is not None and (lengths or len(container.streams) == 1):
        lengths.append(container.duration / av.time_base)
    return min(lengths, default=0.0)  # an edit list shortens the container's, not the stream's


@dataclass
class _Stamps:
    """One kind of time stamp as seconds since the first frame."""

    origin_s: float | None = None
    last_s: float = 0.0
    faults: int = 0  # times it went backwards

    def elapsed(self, stamp_s: float, expected_s: float) -> float:
        if self.origin_s is None:
            self.origin_s = stamp_s - expected_s
        elapsed_s = stamp_s - self.origin_s
        self.faults += elapsed_s < self.last_s
        if (
            elapsed_s < self.last_s - _CLOCK_RESTART_S
        ):  # joined recordings: go on where the first one ended
            self.origin_s, elapsed_s = stamp_s - expected_s, expected_s
        self.last_s = elapsed_s
        return elapsed_s


class _Timeline:
    """Places decoded frames in time: the first at 0, none before the one it follows.

    Presentation stamps are used; where they went backwards more often than the decoding stamps, those (the
    rule of FFmpeg's best-effort time stamp: AVI stores no presentation stamps). A frame without a usable
    stamp follows its predecessor at that frame's own length, or at 1 / average rate where it has none.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.start_s: float | None = None
        self.end_s = 0.0
        self._time_s = 0.0
        self._usual_length_s = float(
            1 / (stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
        )
        self._presentation, self._decoding = _Stamps(), _Stamps()

    def place(self, frame: av.VideoFrame) -> float:
        """Seconds from the first frame to this one."""
        unit_s = float(frame.time_base or 0)
        shown_s = self._elapsed(self._presentation, frame.pts, unit_s)
        decoded_s = self._elapsed(self._decoding, frame.dts, unit_s)
        time_s = self.end_s
        if shown_s is not None and self._presentation.faults <= self._decoding.faults:
            time_s = shown_s
        elif decoded_s is not None:
            time_s = decoded_s
        self._time_s = max(self._time_s, time_s)
        if self.start_s is None:
            origins = (self._presentation.origin_s, self._decoding.origin_s)
            self.start_s = next((origin for origin in origins if origin is not None), 0.0)
        length_s = (frame.duration or 0) * unit_s
        self.end_s = self._time_s + (length_s if length_s > 0 else self._usual_length_s)
        return self._time_s

    def _elapsed(self, stamps: _Stamps, stamp: int | None, unit_s: float) -> float | None:
        return None if stamp is None or unit_s == 0 else stamps.elapsed(stamp * unit_s, self.end_s)


def _to_rgb(path: Path, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of its own memory, pixels made square, then turned upright; alpha is dropped."""
    width, height = _square_pixel_size(frame.width, frame.height, pixel_aspect)
    try:
        image = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
    except (av.FFmpegError, ValueError) as error:
        what = f"pixels of format {frame.format.name} cannot be turned into RGB ({_reason(error)})"
        raise _video_error(path, what) from error
    return np.array(_upright(image, _display_matrix(frame)), order="C")


def _square_pixel_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Size at which pixels are square; the short side grows, so no detail is lost."""
    if not pixel_aspect or not 1 / _LARGEST_STRETCH <= pixel_aspect <= _LARGEST_STRETCH:
        return width, height
    if pixel_aspect > 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) by which a stored point is shown at x' = a x + c y, y' = b x + d y (ISO 14496-12)."""
    try:
        matrix = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)
    except KeyError:
        return 1, 0, 0, 1
    except ValueError:
        # PyAV 18 cannot list side data newer than itself, such as a photo's Exif; `rotation`, in degrees
        # counter-clockwise, is still there, though blind to mirroring.
        quarters = round(frame.rotation / 90) % 4
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[quarters]
    return tuple(matrix[[0, 1, 3, 4]].tolist())


def _upright(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """The image turned and mirrored as the matrix says, to the nearest quarter turn."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b  # (H, W, 3) -> (W, H, 3)
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
