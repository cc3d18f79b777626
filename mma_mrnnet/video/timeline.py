"""Place packets and frames in time, also if a file's clock jumps."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

_BACK_S = 1.0  # a larger step back is a new clock, not jitter
_DEFAULT_RATE = Fraction(25)  # FFmpeg's default for files without times

# In formats that FFmpeg calls discontinuous (MPEG-TS and PS, live streams), recordings can be
# joined by concatenation. Their pictures have no long pauses, so that a step ahead is a new
# clock too (thresholds are our choice).
_BACK_IN_JOINED_S = 0.2
_AHEAD_IN_JOINED_S = 1.0
_WRAP_S = 2**33 / 90_000  # stamps of 33 bits restart after 26.5 hours
_WRAP_TOLERANCE_S = 10.0
_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT, the flag of these formats


def may_be_joined(container: InputContainer) -> bool:
    """Return whether the clock of this format may jump."""
    return bool(container.format.flags & _TS_DISCONT)


@dataclass
class Clock:
    """Converts time stamps to seconds since the first one; continues where stamps jump.

    `faults` counts stamps smaller than the one before. `jumps` are (seconds since the start, size
    in seconds).
    """

    joined: bool = False
    origin_s: float | None = None
    last_s: float = 0.0
    faults: int = 0
    jumps: list[tuple[float, float]] = field(default_factory=list)

    def elapsed(self, stamp_s: float, expected_s: float) -> float:
        """Return seconds since the first stamp; `expected_s` is the end of the previous frame."""
        if self.origin_s is None:
            self.origin_s = stamp_s - expected_s
        elapsed_s = stamp_s - self.origin_s
        if self.joined and abs(elapsed_s + _WRAP_S - expected_s) < _WRAP_TOLERANCE_S:
            self.origin_s -= _WRAP_S
            elapsed_s += _WRAP_S
        self.faults += elapsed_s < self.last_s
        if self._jumps(elapsed_s, expected_s):
            self.jumps.append((expected_s, elapsed_s - expected_s))
            self.origin_s, elapsed_s = stamp_s - expected_s, expected_s
        self.last_s = elapsed_s
        return elapsed_s

    def _jumps(self, elapsed_s: float, expected_s: float) -> bool:
        if elapsed_s < self.last_s - (_BACK_IN_JOINED_S if self.joined else _BACK_S):
            return True
        return self.joined and elapsed_s > expected_s + _AHEAD_IN_JOINED_S


class Timeline:
    """Places decoded frames in time: the first at 0, then without going back.

    Uses presentation stamps, or decoding stamps if these go backwards less often (FFmpeg's
    best-effort rule: AVI has no presentation stamps). A frame without a usable stamp follows the
    previous one after its duration, or after 1 / average rate.

    Attributes:
        start_s: time of the first frame on the file's clock; None before it.
        end_s: end of the last frame, since the start of the first.
        longest_pause_s: start and end of the longest time without a picture.
    """

    def __init__(self, stream: VideoStream, joined: bool) -> None:
        self.start_s: float | None = None
        self.end_s = 0.0
        self.longest_pause_s = (0.0, 0.0)
        self._time_s = 0.0
        rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
        self._usual_length_s = float(1 / rate)
        self._presentation, self._decoding = Clock(joined), Clock(joined)

    def place(self, frame: av.VideoFrame) -> float:
        """Return the seconds from the first frame to this one."""
        unit_s = float(frame.time_base or 0)
        shown_s = self._elapsed(self._presentation, frame.pts, unit_s)
        decoded_s = self._elapsed(self._decoding, frame.dts, unit_s)
        time_s = self.end_s
        if shown_s is not None and self._presentation.faults <= self._decoding.faults:
            time_s = shown_s
        elif decoded_s is not None:
            time_s = decoded_s
        self._time_s = max(self._time_s, time_s)
        start_s, end_s = self.longest_pause_s
        if self._time_s - self.end_s > end_s - start_s:
            self.longest_pause_s = (self.end_s, self._time_s)
        if self.start_s is None:
            origins = (self._presentation.origin_s, self._decoding.origin_s)
            self.start_s = next((origin for origin in origins if origin is not None), 0.0)
        length_s = (frame.duration or 0) * unit_s
        self.end_s = self._time_s + (length_s if length_s > 0 else self._usual_length_s)
        return self._time_s

    @property
    def jumps(self) -> list[tuple[float, float]]:
        """The jumps of the clock, see `Clock`."""
        return self._presentation.jumps or self._decoding.jumps

    def _elapsed(self, clock: Clock, stamp: int | None, unit_s: float) -> float | None:
        return None if stamp is None or unit_s == 0 else clock.elapsed(stamp * unit_s, self.end_s)


class PacketExtent:
    """The number and time span of a stream's packets."""

    def __init__(self, joined: bool) -> None:
        self.packets = 0
        self._clock = Clock(joined)
        self._start_s, self._last_s, self._decoded_s = math.inf, -math.inf, 0.0
        self._shortest_s = math.inf

    def add(self, packet: av.Packet) -> None:
        """Count a packet; skip empty ones."""
        if not packet.size:
            return
        self.packets += 1
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None or packet.time_base is None:
            return
        unit_s = float(packet.time_base)
        length_s = (packet.duration or 0) * unit_s
        if packet.dts is None and self._clock.origin_s is not None and not self._clock.joined:
            # Matroska has no decoding stamps, and FFmpeg cannot derive the first ones.
            shown_s = shown * unit_s - self._clock.origin_s
        else:
            decoded = shown if packet.dts is None else packet.dts
            decoded_s = self._clock.elapsed(decoded * unit_s, self._decoded_s)
            self._decoded_s = decoded_s + length_s
            later_s = (shown - decoded) * unit_s
            # Where recordings were joined, a packet may have stamps of both.
            shown_s = decoded_s + (0.0 if self._clock.joined and abs(later_s) > 1 else later_s)
        self._start_s, self._last_s = min(self._start_s, shown_s), max(self._last_s, shown_s)
        if length_s > 0:
            self._shortest_s = min(self._shortest_s, length_s)

    @property
    def duration_s(self) -> float:
        """Seconds from the first picture to the estimated end of the last."""
        last_length_s = self._shortest_s if math.isfinite(self._shortest_s) else 0.0
        return max(self._last_s - self._start_s, 0.0) + last_length_s


def announced_s(container: InputContainer, stream: VideoStream) -> float:
    """Return the duration of the pictures by the header, in seconds; 0 if unknown.

    FFmpeg's estimates for formats without a duration are ignored. Matroska has a tag per stream.
    The file's duration counts only if the stream has its own or is the only one, since sound may
    be longer.
    """
    if may_be_joined(container):
        return 0.0
    lengths = []
    if stream.duration is not None and stream.time_base is not None:
        lengths.append(float(stream.duration * stream.time_base))
    elif (tag := _tagged_end_s(stream)) is not None:
        lengths.append(tag - float((stream.start_time or 0) * (stream.time_base or 0)))
    if container.duration is not None and (lengths or len(container.streams) == 1):
        lengths.append(container.duration / av.time_base)
    return min(lengths, default=0.0)  # an edit list shortens only the container's


def _tagged_end_s(stream: VideoStream) -> float | None:
    """Return Matroska's tag of a stream's end, such as `00:00:06.040000000`, in seconds."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None
