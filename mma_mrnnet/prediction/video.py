"""Predict the intensities of each person in a video."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mma_mrnnet.crops.store import CropError
from mma_mrnnet.faces.affect import extract_people
from mma_mrnnet.faces.detection import Detection
from mma_mrnnet.faces.strips import FaceSnapshot, Strips
from mma_mrnnet.faces.tracks import FaceFrame, PeopleFrame, crop_faces, rank_people
from mma_mrnnet.hub.facts import CheckpointFacts
from mma_mrnnet.model.labels import action_unit_name
from mma_mrnnet.prediction.checkpoint import Engine, ModelOrName, open_stage_2
from mma_mrnnet.prediction.neutral import (
    Neutral,
    NoNeutralError,
    OwnNeutral,
    check_neutral,
    neutral_stretch,
)
from mma_mrnnet.prediction.result import (
    FEW_FRAMES,
    NO_FACE,
    SampledAffect,
    VideoPrediction,
    frame_columns,
    predict_intensities,
    predict_sampled,
    rate_warning,
    shown,
)
from mma_mrnnet.prediction.stored_crops import StoredClip
from mma_mrnnet.tables.features import TABLE_SUFFIXES, is_table
from mma_mrnnet.video.reading import VideoError, VideoReader, check_rate
from mma_mrnnet.video.sources import FrameReader, OpenVideo, open_video

if TYPE_CHECKING:
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

NOBODY = -1  # not the track of any person

Progress = Callable[[float, float | None], object]
"""Called after each frame with the seconds read and the clip's length; None if it is not known."""


def predict_video(  # noqa: PLR0913 - one argument per choice of the user
    video: Any,
    model: ModelOrName = None,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    *,
    fps: float | None = None,
    every_frame: bool = False,
    neutral: Neutral = None,
    engine: str | None = None,
    revision: str = "main",
    progress: Progress | None = None,
) -> VideoPrediction:
    """Predict the intensities of the person who is in most frames of a clip.

    Intensities always use frames sampled at the checkpoint's rate (`config.sampling_fps`);
    `fps` and `every_frame` change the per-frame table only. Memory grows by one table row per
    frame and person.

    Args:
        video: a path, URL, bytes, file object or data-set entry (see `local_file`) of any video
            that FFmpeg reads; or frames in memory: an array or tensor (T, H, W, 3) uint8 RGB, or
            a list of PIL images; or a folder of crops from `mma-mrnnet crop`.
        model: a stage-2 model, its folder or Hub repository, or an opened `Engine`; None: the
            bundled one.
        processor: required if `model` is a model object.
        fps: frames per second of the per-frame table; None: the checkpoint's rate. Required for
            frames in memory: their own rate.
        every_frame: include every frame in the table; excludes `fps`.
        neutral: start and end in seconds of a stretch where the face rests, or `auto` for the
            calmest one; what the face shows there is subtracted from the affect (see
            `OwnNeutral`). No model was trained with it.
        engine: what runs the checkpoint: `onnx` (onnxruntime, without importing PyTorch) or
            `torch`; None: onnxruntime if the checkpoint carries ONNX files, see `open_engine`.
        revision: branch, tag or commit of a Hub repository.
        progress: called after each frame that is read, with the seconds read so far and the
            length of the clip in seconds (None if the file does not say it).

    Returns:
        A `VideoPrediction`. Without a face in the clip, or in the neutral stretch, it has NaN
        intensities and an `error`.

    Raises:
        VideoError: `video` is something else, or cannot be read.
        ValueError: a model without its processor, of stage 1 or for feature tables; a rate that is
            not a positive number; both `fps` and `every_frame`; an invalid `neutral`.
    """
    check_neutral(neutral)
    opened = open_stage_2(model, processor, engine=engine, revision=revision)
    with _read_clip(video, opened, fps, every_frame, neutral, progress) as clip:
        return _predict_person(clip, 0)


def predict_people(  # noqa: PLR0913 - one argument per choice of the user
    video: Any,
    model: ModelOrName = None,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    *,
    fps: float | None = None,
    every_frame: bool = False,
    neutral: Neutral = None,
    engine: str | None = None,
    revision: str = "main",
    progress: Progress | None = None,
) -> list[VideoPrediction]:
    """Predict the intensities of everybody in a clip; arguments and errors as in `predict_video`.

    People are told apart only by position and size from frame to frame (see `FaceTracker`).
    They are ordered by the number of sampled frames with their face; the first is the person
    of `predict_video`. A face in a single frame comes last, and counts among `people` only in
    a very short clip.

    Returns:
        At least one `VideoPrediction`; a clip without a face gives one with an `error`.
    """
    check_neutral(neutral)
    opened = open_stage_2(model, processor, engine=engine, revision=revision)
    with _read_clip(video, opened, fps, every_frame, neutral, progress) as clip:
        return [_predict_person(clip, place) for place in range(max(len(clip.people), 1))]


@dataclass
class _Clip:
    """A clip after stage 1, read once for all its people.

    `frames`: all frames without crops, with each person's (A,) affect by track. `people`: tracks,
    most frames first. `snapshots`: some crops of each person.
    """

    name: str
    engine: Engine
    neutral: Neutral
    frames: list[tuple[PeopleFrame, dict[int, np.ndarray]]]
    people: list[int]
    snapshots: Strips
    duration_s: float
    warning: str | None

    @property
    def facts(self) -> CheckpointFacts:
        return self.engine.facts


@contextmanager
def _read_clip(
    video: Any,
    engine: Engine,
    fps: float | None,
    every_frame: bool,
    neutral: Neutral,
    progress: Progress | None,
) -> Iterator[_Clip]:
    """Check the arguments; read frames, people, crops and affect."""
    if fps is not None:
        check_rate(fps)
    with open_video(video, fps) as opened:
        if every_frame and fps is not None and not opened.in_memory:
            raise ValueError(
                f"give either fps or every_frame; got fps={fps!r} and every_frame=True"
            )
        facts = engine.facts
        _check_reads_videos(opened, facts)
        table_fps: float | None = facts.sampling_fps if fps is None or opened.in_memory else fps
        table_fps = None if every_frame else table_fps
        try:
            clip = _read_people(opened, engine, table_fps, neutral, progress)
        except CropError as error:
            raise VideoError(str(error)) from error
        yield clip


def _read_people(
    opened: OpenVideo,
    engine: Engine,
    table_fps: float | None,
    neutral: Neutral,
    progress: Progress | None,
) -> _Clip:
    facts = engine.facts
    assert facts.image_size is not None
    rates = facts.sampling_fps, table_fps
    snapshots = Strips()
    video: StoredClip | VideoReader | FrameReader
    seen: Iterable[PeopleFrame]
    if opened.path is not None and opened.path.is_dir():
        video = seen = StoredClip(opened.path, *rates)
    else:
        video = opened.read(*rates)
        seen = crop_faces(video, facts.image_size)
    if progress is not None:
        seen = _report_progress(seen, video, progress)
    people = _keep_snapshots(seen, snapshots)
    frames = list(extract_people(people, engine.extract_affect))
    return _Clip(
        name=opened.name,
        engine=engine,
        neutral=neutral,
        frames=frames,
        people=rank_people(frame for frame, _ in frames),
        snapshots=snapshots,
        duration_s=video.duration_s,
        warning=video.warning,
    )


def _check_reads_videos(opened: OpenVideo, facts: CheckpointFacts) -> None:
    if facts.feature_names is not None:
        raise ValueError(
            f"{opened.name}: this model reads tables of features ({', '.join(TABLE_SUFFIXES)}), "
            "not videos; a video needs a model with an extractor, such as the one that ships"
        )
    if is_table(opened.name):
        raise VideoError(
            f"{opened.name}: is a table, and this model reads videos; "
            "a model trained on such tables is needed"
        )


def _report_progress(
    frames: Iterable[PeopleFrame], video: StoredClip | VideoReader | FrameReader, progress: Progress
) -> Iterator[PeopleFrame]:
    """Yield the frames unchanged, and call `progress` after each."""
    for frame in frames:
        yield frame
        progress(frame.time_s, video.announced_s)
    progress(video.duration_s, video.duration_s)


def _keep_snapshots(frames: Iterable[PeopleFrame], snapshots: Strips) -> Iterator[PeopleFrame]:
    """Yield the frames unchanged; keep some crops of the sampled ones."""
    for frame in frames:
        if frame.due[0]:
            for track, crop in frame.crops.items():
                score = frame.faces[track].score
                snapshots.add(track, FaceSnapshot(frame.time_s, frame.index, crop, score))
        yield frame


_PersonFrame = tuple[FaceFrame, np.ndarray | None]
"""One person's part of a frame, and their (A,) affect; None if they are not in it."""


def _predict_person(clip: _Clip, place: int) -> VideoPrediction:
    """Predict the person at a position of `clip.people`; without people, return the error."""
    facts = clip.facts
    track = clip.people[place] if clip.people else NOBODY
    frames: list[_PersonFrame] = [
        (frame.of(track), affect.get(track)) for frame, affect in clip.frames
    ]
    sampled = _sampled_affect(frames, facts)
    error = None if len(sampled.values) else _no_face_error(frames, facts)
    times_s = [frame.time_s for frame, _ in frames if frame.due[0]]
    neutral_s = uncorrected = None
    if error is None and clip.neutral is not None:
        try:
            neutral_s = neutral_stretch(
                clip.neutral, sampled.times_s, sampled.values, facts.sampling_fps
            )
        except NoNeutralError as reason:
            error = str(reason)
            sampled = _sampled_affect([], facts)
        else:
            uncorrected = predict_intensities(sampled, clip.engine)
            frames = _calibrate(frames, sampled, neutral_s)
            sampled = _sampled_affect(frames, facts)
    return predict_sampled(
        sampled,
        clip.engine,
        file=clip.name,
        frames=_frame_table(clip, place, frames),
        duration_s=clip.duration_s,
        error=error,
        warnings=(clip.warning, rate_warning(times_s, facts.sampling_fps)),
        prior_only=tuple(map(action_unit_name, facts.prior_only_action_units)),
        track=place,
        people=_count_people(clip),
        strip=clip.snapshots.of(track),
        neutral_s=neutral_s,
        uncorrected=uncorrected,
    )


def _sampled_affect(frames: list[_PersonFrame], facts: CheckpointFacts) -> SampledAffect:
    chosen = [
        (affect, frame.index, round(frame.time_s, 6))
        for frame, affect in frames
        if frame.due[0] and affect is not None
    ]
    values, numbers, times_s = zip(*chosen, strict=True) if chosen else ((), (), ())
    return SampledAffect(
        values=np.array(values, np.float32).reshape(-1, facts.input_size),
        frames=np.array(numbers, int),
        times_s=np.array(times_s, float),
    )


def _no_face_error(frames: list[_PersonFrame], facts: CheckpointFacts) -> str:
    if any(affect is not None for _, affect in frames):
        return f"no face in the frames sampled at {facts.sampling_fps:g} a second"
    return NO_FACE


def _calibrate(
    frames: list[_PersonFrame], sampled: SampledAffect, neutral_s: tuple[float, float]
) -> list[_PersonFrame]:
    start_s, end_s = neutral_s
    inside = (sampled.times_s >= start_s) & (sampled.times_s <= end_s)
    own = OwnNeutral.of(sampled.values[inside])
    return [
        (frame, None if affect is None else own.taken_from(affect[None])[0])
        for frame, affect in frames
    ]


def _count_people(clip: _Clip) -> int:
    """Count the people in at least `FEW_FRAMES` sampled frames, or half of the first one's."""
    seen = Counter(track for frame, _ in clip.frames if frame.due[0] for track in frame.faces)
    return sum(seen[track] >= min(FEW_FRAMES, seen[clip.people[0]] / 2) for track in clip.people)


def _frame_table(clip: _Clip, place: int, frames: list[_PersonFrame]) -> pd.DataFrame:
    missing = np.full(clip.facts.input_size, np.nan, np.float32)
    file = shown(clip.name)
    rows = [
        (
            file,
            place,
            frame.index,
            round(frame.time_s, 6),
            frame.detection is not None,
            frame.detection is not None and frame.detection.interpolated,
            *_rounded_box(frame.detection),
            *(missing if affect is None else affect).tolist(),
        )
        for frame, affect in frames
        if frame.due[1]
    ]
    return pd.DataFrame(rows, columns=frame_columns(clip.facts))


def _rounded_box(detection: Detection | None) -> tuple[float, ...]:
    if detection is None:
        return (float("nan"),) * 4
    return tuple(round(value, 1) for value in detection.box)
