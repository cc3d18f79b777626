"""Predict intensities after each frame of a live stream or clip, and in sliding windows."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mma_mrnnet.faces.detection import Detection, FaceDetector, align_face
from mma_mrnnet.faces.tracks import FaceFollower
from mma_mrnnet.hub.facts import CheckpointFacts
from mma_mrnnet.prediction.checkpoint import Engine, ModelOrName, open_stage_2
from mma_mrnnet.prediction.result import run_stage_2
from mma_mrnnet.video.reading import TIME_TOLERANCE_S, FrameClock

if TYPE_CHECKING:
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


@dataclass(frozen=True)
class LiveEstimate:
    """Estimate after one sampled frame of a stream.

    Attributes:
        time_s: the frame's time stamp, as given.
        intensities: by label name, of the faces in the window; NaN if there are none.
        affect: the frame's affect by name; None without a face, like the next two.
        detection: the tracked face.
        crop: (S, S, 3) uint8 RGB, the input of the extractor.
        frames_in_window: frames with a face in the window.
        frames_sampled, frames_with_face: counts since the start.
    """

    time_s: float
    intensities: dict[str, float]
    affect: dict[str, float] | None
    detection: Detection | None
    crop: np.ndarray | None = field(repr=False)
    frames_in_window: int
    frames_sampled: int
    frames_with_face: int


class LiveReader:
    """Reads frames with time stamps from a camera, or any other source, as they come.

    Frames may come at any rate; those due at `config.sampling_fps` are sampled, as in
    `predict_video`. The intensities are the model's output for the faces of the last
    `window_s`: the extractor reads each frame once, and the GRU runs over the whole window for
    each frame, since it cannot forget one. Memory use is bounded.

    An instance follows one stream and is not thread-safe.

    Args:
        model: a stage-2 model with an extractor, its folder or Hub repository, or an opened
            `Engine`; None: the bundled one.
        processor: required if `model` is a model object.
        window_s: length of the window in seconds; None: the maximum, T / `sampling_fps`.
        detector: None creates one.
        engine: `onnx` or `torch`; None as in `open_engine`.

    Raises:
        ValueError: a model without its processor, of stage 1 or for feature tables; a window
            that is not a positive number or holds more frames than the network reads.
    """

    def __init__(
        self,
        model: ModelOrName = None,
        processor: "MMAMRNNetVideoProcessor | None" = None,
        window_s: float | None = None,
        *,
        detector: FaceDetector | None = None,
        engine: str | None = None,
    ) -> None:
        self.engine = open_stage_2(model, processor, engine=engine)
        self._facts = self.engine.facts
        if self._facts.feature_names is not None:
            raise ValueError(
                "this model reads tables of features and sees no images: "
                "use running_intensities or sliding_windows"
            )
        self.window_s = _check_window(window_s, self._facts)
        self._detector = detector or FaceDetector()
        self.reset()

    def reset(self) -> None:
        """Forget all frames; the next one starts a new stream with its own person and times."""
        self._clock = FrameClock(self._facts.sampling_fps)
        self._follower = FaceFollower()
        self._window = _Window(self.engine, self.window_s)
        self._first_s: float | None = None
        self._last_s = -math.inf
        self._sampled = self._with_face = 0

    def add(self, image: np.ndarray, time_s: float) -> LiveEstimate | None:
        """Add the next frame, and return the estimate after it; None if the frame is not due.

        `image` is (H, W, 3) uint8 RGB, upright; `time_s` the capture time in seconds, on any clock
        that does not run backwards. A frame without a face adds nothing, but older frames may
        leave the window.

        Raises:
            ValueError: an image of another shape or dtype; a time stamp that is not finite or
                is earlier than the last one. Such a frame is ignored.
        """
        self._check_time(time_s)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(
                f"an image must be (H, W, 3) uint8 RGB; got {image.dtype} {image.shape}"
            )
        self._first_s = time_s if self._first_s is None else self._first_s
        self._last_s = time_s
        since_start_s = time_s - self._first_s
        if not self._clock.keeps(since_start_s):
            return None
        facts, size = self._facts, self._facts.image_size
        assert size is not None
        detection = self._follower.follow(self._detector(image), since_start_s)
        crop = affect = named_affect = None
        if detection is not None:
            crop = align_face(image, detection.landmarks, size)
            affect = self.engine.extract_affect([crop])[0]  # (A,)
            named_affect = dict(zip(facts.input_names, affect.tolist(), strict=True))
        intensities = self._window.add(since_start_s, affect)  # (K,)
        self._sampled += 1
        self._with_face += detection is not None
        return LiveEstimate(
            time_s=time_s,
            intensities=dict(zip(facts.label_names, intensities.tolist(), strict=True)),
            affect=named_affect,
            detection=detection,
            crop=crop,
            frames_in_window=len(self._window),
            frames_sampled=self._sampled,
            frames_with_face=self._with_face,
        )

    def notes(self) -> list[str]:
        """Return the sentences that must be shown with the intensities."""
        return self._facts.caveats()

    def _check_time(self, time_s: float) -> None:
        if not (isinstance(time_s, Real) and math.isfinite(time_s)):
            raise ValueError(f"time_s must be a finite number of seconds; got {time_s!r}")
        if time_s < self._last_s:
            raise ValueError(
                f"time stamps must not go backwards: {time_s} came after {self._last_s}; "
                "call reset() where another recording starts"
            )


class _Window:
    """The affect of the last `window_s` of a stream, and the intensities of these frames only."""

    def __init__(self, engine: Engine, window_s: float) -> None:
        self.engine, self.window_s = engine, window_s
        facts = engine.facts
        # Uneven times can give T + 1 frames in a window of T / fps: keep the latest T.
        self._times_s: deque[float] = deque(maxlen=facts.num_frames)
        self._affect: deque[np.ndarray] = deque(maxlen=facts.num_frames)
        self._latest = np.full(len(facts.label_names), np.nan, np.float32)

    def __len__(self) -> int:
        """Return the number of frames with a face in the window."""
        return len(self._affect)

    def add(self, time_s: float, affect: np.ndarray | None) -> np.ndarray:
        """Add a frame's (A,) affect, or None without a face; return (K,) intensities, or NaN."""
        before = len(self)
        while self._times_s and self._times_s[0] <= time_s - self.window_s + TIME_TOLERANCE_S:
            self._times_s.popleft()
            self._affect.popleft()
        changed = affect is not None or len(self) < before
        if affect is not None:
            self._times_s.append(time_s)
            self._affect.append(affect)
        if changed:
            (self._latest,) = run_stage_2([np.array(self._affect)], self.engine)
        return self._latest


def running_intensities(
    times_s: Sequence[float] | np.ndarray,
    affect: np.ndarray,
    model: ModelOrName = None,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    window_s: float | None = None,
) -> pd.DataFrame:
    """Return the estimates of `LiveReader` after each frame of a clip.

    Args:
        times_s: (N,) seconds since the clip's first frame, in order.
        affect: (N, A) in the order of `config.input_names`; a row with a NaN is a frame without
            a face. Only frames due at `config.sampling_fps` are used.
        model: as in `LiveReader`, with an extractor or for features.
        processor: required if `model` is a model object.
        window_s: as in `LiveReader`.

    Returns:
        One row per used frame: time_s, frames_in_window (those with a face), and the
        intensities, NaN if the window has no face.

    Raises:
        ValueError: a model, processor or window as in `LiveReader`; times not finite, negative
            or not in order; affect of another shape or infinite.
    """
    engine = open_stage_2(model, processor)
    facts = engine.facts
    times_s, affect = _keep_due(times_s, affect, facts)
    window = _Window(engine, _check_window(window_s, facts))
    rows = []
    for time_s, row in zip(times_s.tolist(), affect, strict=True):
        intensities = window.add(time_s, None if np.isnan(row).any() else row)
        rows.append((time_s, len(window), *intensities.tolist()))
    return pd.DataFrame(rows, columns=["time_s", "frames_in_window", *facts.label_names])


def sliding_windows(
    times_s: Sequence[float] | np.ndarray,
    affect: np.ndarray,
    model: ModelOrName = None,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    window_s: float = 12.0,
    hop_s: float = 1.0,
) -> pd.DataFrame:
    """Return the intensities of a clip's windows, each from its own frames only.

    Windows start at multiples of `hop_s`, from the last start at or before the first frame to
    the first window that reaches the last frame. Windows without frames are left out. A window
    includes its start and excludes its end. If uneven times give one frame more than the
    network reads, the latest frames are used.

    `times_s`, `affect`, `model` and `processor` are as in `running_intensities`; `window_s` is at
    most T / `sampling_fps`.

    Returns:
        One row per window: start_s, end_s (may exceed the clip's), frames_with_face, and the
        intensities, NaN if the window has no face.

    Raises:
        ValueError: as in `running_intensities`; or `hop_s` is not a positive number.
    """
    engine = open_stage_2(model, processor)
    facts = engine.facts
    window_s = _check_window(window_s, facts)
    hop_s = _check_positive("hop_s", hop_s)
    times_s, affect = _keep_due(times_s, affect, facts)
    has_face = ~np.isnan(affect).any(1)  # (N,)
    starts_s = _window_starts(times_s, window_s, hop_s)
    clips = []
    for start_s in starts_s:
        bounds_s = np.array([start_s, start_s + window_s]) - TIME_TOLERANCE_S
        first, end = np.searchsorted(times_s, bounds_s)
        clips.append(affect[first:end][has_face[first:end]][-facts.num_frames :])
    intensities = run_stage_2(clips, engine).astype(float)
    windows = pd.DataFrame(
        {
            "start_s": starts_s,
            "end_s": [start_s + window_s for start_s in starts_s],
            "frames_with_face": [len(clip) for clip in clips],
        }
    )
    return windows.join(pd.DataFrame(intensities, columns=facts.label_names))


def _window_starts(times_s: np.ndarray, window_s: float, hop_s: float) -> list[float]:
    """Return the starts of the windows of `sliding_windows`; none for a clip without frames."""
    if len(times_s) == 0:
        return []
    starts_s: list[float] = []
    number = math.floor((times_s[0] + TIME_TOLERANCE_S) / hop_s)
    last_s = times_s[-1] + TIME_TOLERANCE_S
    while number * hop_s <= last_s:
        start_s = number * hop_s
        first = int(np.searchsorted(times_s, start_s - TIME_TOLERANCE_S))
        next_s = times_s[min(first, len(times_s) - 1)]
        if next_s < start_s + window_s - TIME_TOLERANCE_S:
            starts_s.append(start_s)
            if start_s + window_s > last_s:
                break
            number += 1
        else:  # to the first window that reaches the next frame
            reaching = math.floor((next_s + TIME_TOLERANCE_S - window_s) / hop_s) + 1
            number = max(number + 1, reaching)
    return starts_s


def _keep_due(
    times_s: Sequence[float] | np.ndarray, affect: np.ndarray, facts: CheckpointFacts
) -> tuple[np.ndarray, np.ndarray]:
    """Check times and affect; return (n,) float64 and (n, A) float32 of the due frames."""
    times_s, affect = np.asarray(times_s, np.float64), np.asarray(affect, np.float32)
    if times_s.ndim != 1 or affect.shape != (len(times_s), facts.input_size):
        raise ValueError(
            f"times_s must be (N,) and affect (N, {facts.input_size}); "
            f"got {times_s.shape} and {affect.shape}"
        )
    if not np.isfinite(times_s).all() or (times_s < 0).any() or (np.diff(times_s) < 0).any():
        raise ValueError("times_s must be finite seconds since the clip's first frame, in order")
    if np.isinf(affect).any():
        raise ValueError("affect holds infinite numbers; frames without a face are rows of NaN")
    clock = FrameClock(facts.sampling_fps)
    due = np.array([clock.keeps(time_s) for time_s in times_s.tolist()], bool)
    return times_s[due], affect[due]


def _check_window(window_s: float | None, facts: CheckpointFacts) -> float:
    """Return the window in seconds, by default the longest; errors as in `LiveReader`."""
    fps, most = facts.sampling_fps, facts.num_frames
    if window_s is None:
        return most / fps
    if _check_positive("window_s", window_s) > most / fps + TIME_TOLERANCE_S:
        raise ValueError(
            f"a window of {window_s:g} s holds {window_s * fps:g} frames at the model's {fps:g} "
            f"a second, and it reads at most {most}: window_s may be up to {most / fps:g}"
        )
    return float(window_s)


def _check_positive(name: str, seconds: float) -> float:
    if not (isinstance(seconds, Real) and math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{name} must be a positive number of seconds; got {seconds!r}")
    return float(seconds)
