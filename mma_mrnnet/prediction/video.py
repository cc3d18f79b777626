"""A video file -> a VideoPrediction of each person in it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mma_mrnnet.faces.affect import extract_affect, extract_people
from mma_mrnnet.faces.detection import Detection
from mma_mrnnet.faces.strips import FaceSnapshot, Strips
from mma_mrnnet.faces.tracks import FaceFrame, PeopleFrame, crop_faces, rank_people
from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.model.labels import action_unit_name
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.prediction.checkpoint import checked_pair, stage_2_config
from mma_mrnnet.prediction.neutral import (
    Neutral,
    NoNeutralError,
    OwnNeutral,
    check_neutral,
    neutral_stretch,
)
from mma_mrnnet.prediction.outputs import FEW_FRAMES, Outputs, outputs_of
from mma_mrnnet.prediction.result import NO_FACE, VideoPrediction, shown
from mma_mrnnet.prediction.tables import frame_columns
from mma_mrnnet.tables import TABLE_SUFFIX
from mma_mrnnet.video.reading import VideoError, read_frames


def predict_video(
    path: str | os.PathLike[str],
    model: MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
    *,
    fps: float | None = None,
    every_frame: bool = False,
    neutral: Neutral = None,
) -> VideoPrediction:
    """The intensities of a clip, and the affect of its frames: of the person who is in most of them.

    The intensities always rest on the frames sampled at the checkpoint's own rate (`config.sampling_fps`); `fps` and
    `every_frame` change the per-frame table only. Runs on the model's device; memory does not grow with the length
    of the clip, beyond one table row a frame and person.

    Args:
        path: a video file of any length, frame rate and pixel format that FFmpeg knows.
        model: a stage-2 model; None takes the checkpoint that ships with the package.
        processor: the model's processor; needed with `model`.
        fps: frames a second of the per-frame table; None takes the checkpoint's rate.
        every_frame: a table row for every frame of the file, instead of `fps`.
        neutral: a stretch (start, end) in seconds in which the person's face rests, or `auto` for the calmest one:
            what that face shows is taken out of the affect (see `OwnNeutral`). No model was trained with it.

    Returns:
        A `VideoPrediction`. A clip without a face, or without one in the neutral stretch, has NaN intensities and says
        so in `error`.

    Raises:
        VideoError: the file cannot be read as a video.
        ValueError: a model without its processor, of stage 1 or for tables of features, a rate that is not a positive
            number, both `fps` and `every_frame`, or a `neutral` that is no stretch.
    """
    clip = _read(path, model, processor, fps, every_frame, neutral)
    return _prediction(clip, 0)


def predict_people(
    path: str | os.PathLike[str],
    model: MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
    *,
    fps: float | None = None,
    every_frame: bool = False,
    neutral: Neutral = None,
) -> list[VideoPrediction]:
    """One prediction for everybody who was followed in a clip; the first is what `predict_video` gives.

    People are told apart by place and size from frame to frame, and by nothing else (see `FaceTracker`). Whoever is
    in more of the sampled frames comes first, which is `track` 0; what was taken for a face in a single frame comes
    last, and counts among `people` only where the clip has hardly more.

    Args:
        path: as in `predict_video`, like all that follows.
        model: a stage-2 model, or None.
        processor: the model's processor.
        fps: frames a second of the per-frame tables.
        every_frame: a table row for every frame of the file.
        neutral: each person's own: the same (start, end) for all, or `auto`.

    Returns:
        At least one `VideoPrediction`: without any face the one that says so.

    Raises:
        VideoError: the file cannot be read as a video.
        ValueError: as in `predict_video`.
    """
    clip = _read(path, model, processor, fps, every_frame, neutral)
    return [_prediction(clip, place) for place in range(max(len(clip.people), 1))]


@dataclass
class _Clip:
    """A clip as it was read, once for all people.

    Attributes:
        path: as given.
        model: that reads it ...
        processor: ... with its processor.
        rows: each frame, without crops, with everybody's (A,) affect under the number of their track.
        people: these numbers, most frames first.
        followed: how many of them are more than a glimpse.
        strips: some crops of each.
        duration_s: length of what was decoded.
        warning: what a damaged file lost.
        neutral: as asked.
    """

    path: str
    model: MMAMRNNetForIntensity
    processor: MMAMRNNetVideoProcessor
    rows: list[tuple[PeopleFrame, dict[int, np.ndarray]]]
    people: list[int]
    followed: int
    strips: Strips
    duration_s: float
    warning: str | None
    neutral: Neutral


def _read(
    path: str | os.PathLike[str],
    model: MMAMRNNetForIntensity | None,
    processor: MMAMRNNetVideoProcessor | None,
    fps: float | None,
    every_frame: bool,
    neutral: Neutral,
) -> _Clip:
    """What `predict_people` knows of a clip before stage 2 sees it."""
    if every_frame and fps is not None:
        raise ValueError(f"give either fps or every_frame; got fps={fps!r} and every_frame=True")
    check_neutral(neutral)
    model, processor = checked_pair(model, processor)
    config = stage_2_config(model)
    _require_a_video(path, config)
    table_rate = None if every_frame else (config.sampling_fps if fps is None else fps)
    frames = read_frames(path, config.sampling_fps, table_rate)
    strips = Strips()
    people_frames = _with_strips(crop_faces(frames, config.mma_config.image_size), strips)
    rows = list(
        extract_people(people_frames, lambda crops: extract_affect(crops, model.mma, processor))
    )
    people = rank_people(frame for frame, _ in rows)
    return _Clip(
        path=str(path),
        model=model,
        processor=processor,
        rows=rows,
        people=people,
        followed=_followed(people, rows),
        strips=strips,
        duration_s=frames.duration_s,
        warning=frames.warning,
        neutral=neutral,
    )


def _with_strips(frames: Iterable[PeopleFrame], strips: Strips) -> Iterator[PeopleFrame]:
    """The same frames; some crops of those that are due at the first rate stay in the strips."""
    for frame in frames:
        if frame.due[0]:
            for track, crop in frame.crops.items():
                strips.add(
                    track, FaceSnapshot(frame.time_s, frame.index, crop, frame.faces[track].score)
                )
        yield frame


def _require_a_video(path: str | os.PathLike[str], config: MMAMRNNetConfig) -> None:
    """Raises what `predict_video` does where file and model are of two kinds."""
    if config.feature_names is not None:
        raise ValueError(
            f"{path}: this model reads tables of features ({TABLE_SUFFIX}), not videos; a video needs a model with an "
            "extractor, such as the one that ships"
        )
    if Path(path).suffix.lower() == TABLE_SUFFIX:
        raise VideoError(
            f"{path}: is a table, and this model reads videos; a model trained on such tables is needed"
        )


def _prediction(clip: _Clip, place: int) -> VideoPrediction:
    """Of the person at that place in `clip.people`; without anybody of the clip alone."""
    config = clip.model.config
    track = clip.people[place] if clip.people else -1
    rows = [(frame.of(track), affect.get(track)) for frame, affect in clip.rows]
    sampled = [(frame, affect) for frame, affect in rows if frame.due[0] and affect is not None]
    error = None
    if not sampled:
        seen = any(affect is not None for _, affect in rows)
        error = (
            f"no face in the frames sampled at {config.sampling_fps:g} a second"
            if seen
            else NO_FACE
        )
    neutral_s = uncorrected = None
    if sampled and clip.neutral is not None:
        try:
            neutral_s, own = _own_neutral(clip.neutral, sampled, config.sampling_fps)
        except NoNeutralError as reason:
            error, sampled = str(reason), []
        else:
            uncorrected = _outputs(sampled, clip).intensities
            rows = [
                (frame, None if row is None else own.taken_from(row[None])[0])
                for frame, row in rows
            ]
            sampled = [(frame, row) for frame, row in rows if frame.due[0] and row is not None]
    outputs = _outputs(sampled, clip)
    return VideoPrediction(
        file=clip.path,
        intensities=outputs.intensities,
        frames=_table(
            shown(clip.path),
            place,
            [(frame, affect) for frame, affect in rows if frame.due[1]],
            config,
        ),
        duration_s=clip.duration_s,
        error=error,
        warning="; ".join(part for part in (clip.warning, outputs.caution) if part) or None,
        calibrated=config.calibrated,
        relative=config.relative_labels,
        simulated=config.simulated_labels,
        prior_only=tuple(map(action_unit_name, config.prior_only_action_units)),
        track=place,
        people=clip.followed,
        moments=outputs.moments,
        constant=outputs.constant,
        running=outputs.running,
        strip=clip.strips.of(track),
        neutral_s=neutral_s,
        uncorrected=uncorrected,
    )


def _own_neutral(
    neutral: tuple[float, float] | str, sampled: list[tuple[FaceFrame, np.ndarray]], fps: float
) -> tuple[tuple[float, float], OwnNeutral]:
    """The stretch, and what the person's face shows in it."""
    times_s = np.array([frame.time_s for frame, _ in sampled])
    affect = np.stack([row for _, row in sampled])
    start, end = neutral_stretch(neutral, times_s, affect, fps)
    return (start, end), OwnNeutral.of(affect[(times_s >= start) & (times_s <= end)])


def _outputs(sampled: list[tuple[FaceFrame, np.ndarray]], clip: _Clip) -> Outputs:
    return outputs_of(
        np.array([affect for _, affect in sampled], np.float32).reshape(
            -1, clip.model.config.input_size
        ),
        np.array([frame.index for frame, _ in sampled], int),
        np.array([round(frame.time_s, 6) for frame, _ in sampled]),
        clip.model,
        clip.processor,
    )


def _followed(people: list[int], rows: list[tuple[PeopleFrame, dict[int, np.ndarray]]]) -> int:
    """People who are more than a glimpse: in `FEW_FRAMES` sampled frames, or in half of what the first one is in."""
    seen = Counter(track for frame, _ in rows if frame.due[0] for track in frame.faces)
    return sum(seen[track] >= min(FEW_FRAMES, seen[people[0]] / 2) for track in people)


def _table(
    file: str, track: int, rows: list[tuple[FaceFrame, np.ndarray | None]], config: MMAMRNNetConfig
) -> pd.DataFrame:
    missing = np.full(config.input_size, np.nan, np.float32)
    values = [
        (
            file,
            track,
            frame.index,
            round(frame.time_s, 6),
            frame.detection is not None,
            *_box(frame.detection),
            *(missing if affect is None else affect).tolist(),
        )
        for frame, affect in rows
    ]
    return pd.DataFrame(values, columns=frame_columns(config))


def _box(detection: Detection | None) -> tuple[float, ...]:
    return (
        (float("nan"),) * 4
        if detection is None
        else tuple(round(value, 1) for value in detection.box)
    )
