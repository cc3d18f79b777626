"""A video file -> a VideoPrediction."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from mma_mrnnet.data.affect import frames_with_affect
from mma_mrnnet.data.faces import Detection, FaceFrame, crop_faces
from mma_mrnnet.data.feature_tables import TABLE_SUFFIX
from mma_mrnnet.data.video import VideoError, read_frames
from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.model.labels import action_unit_name
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.prediction.checkpoint import checked_pair, stage_2_config
from mma_mrnnet.prediction.outputs import outputs_of
from mma_mrnnet.prediction.result import NO_FACE, VideoPrediction
from mma_mrnnet.prediction.tables import frame_columns


def predict_video(
    path: str | os.PathLike[str],
    model: MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
    *,
    fps: float | None = None,
    every_frame: bool = False,
) -> VideoPrediction:
    """The intensities of a clip, and the affect of its frames.

    The intensities always rest on the frames sampled at the checkpoint's own rate (`config.sampling_fps`); `fps` and
    `every_frame` change the per-frame table only. Runs on the model's device; memory does not grow with the length
    of the clip, beyond one table row a frame.

    Args:
        path: a video file of any length, frame rate and pixel format that FFmpeg knows.
        model: a stage-2 model; None takes the checkpoint that ships with the package.
        processor: the model's processor; needed with `model`.
        fps: frames a second of the per-frame table; None takes the checkpoint's rate.
        every_frame: a table row for every frame of the file, instead of `fps`.

    Returns:
        A `VideoPrediction`. A clip without a face has NaN intensities and says so in `error`.

    Raises:
        VideoError: the file cannot be read as a video.
        ValueError: a model without its processor, of stage 1 or for tables of features, a rate that is not a positive
            number, or both `fps` and `every_frame`.
    """
    if every_frame and fps is not None:
        raise ValueError(f"give either fps or every_frame; got fps={fps!r} and every_frame=True")
    model, processor = checked_pair(model, processor)
    config = stage_2_config(model)
    _require_a_video(path, config)
    table_rate = None if every_frame else (config.sampling_fps if fps is None else fps)
    frames = read_frames(path, config.sampling_fps, table_rate)
    rows = list(frames_with_affect(crop_faces(frames, config.mma_config.image_size), model.mma, processor))
    sampled = [(frame, affect) for frame, affect in rows if frame.due[0] and affect is not None]
    outputs = outputs_of(
        np.array([affect for _, affect in sampled], np.float32).reshape(-1, config.input_size),
        np.array([frame.index for frame, _ in sampled], int),
        np.array([round(frame.time_s, 6) for frame, _ in sampled]),
        model,
        processor,
    )
    error = None
    if not sampled:
        seen = any(affect is not None for _, affect in rows)
        error = f"no face in the frames sampled at {config.sampling_fps:g} a second" if seen else NO_FACE
    cautions = [part for part in (frames.warning, outputs.caution) if part]
    table = _table(str(path), [(frame, affect) for frame, affect in rows if frame.due[1]], config)
    return VideoPrediction(
        file=str(path),
        intensities=outputs.intensities,
        frames=table,
        duration_s=frames.duration_s,
        error=error,
        warning="; ".join(cautions) or None,
        calibrated=config.calibrated,
        relative=config.relative_labels,
        simulated=config.simulated_labels,
        prior_only=tuple(map(action_unit_name, config.prior_only_action_units)),
        moments=outputs.moments,
        constant=outputs.constant,
        running=outputs.running,
    )


def _require_a_video(path: str | os.PathLike[str], config: MMAMRNNetConfig) -> None:
    """Raises what `predict_video` does where file and model are of two kinds."""
    if config.feature_names is not None:
        raise ValueError(
            f"{path}: this model reads tables of features ({TABLE_SUFFIX}), not videos; a video needs a model with an "
            "extractor, such as the one that ships"
        )
    if Path(path).suffix.lower() == TABLE_SUFFIX:
        raise VideoError(f"{path}: is a table, and this model reads videos; a model trained on such tables is needed")


def _table(file: str, rows: list[tuple[FaceFrame, np.ndarray | None]], config: MMAMRNNetConfig) -> pd.DataFrame:
    missing = np.full(config.input_size, np.nan, np.float32)
    values = [
        (
            file,
            0,
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
    return (float("nan"),) * 4 if detection is None else tuple(round(value, 1) for value in detection.box)
