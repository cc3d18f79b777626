"""A video file, or a table of features -> a VideoPrediction; and the tables that are written of it."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mma_mrnnet.data.affect import frames_with_affect
from mma_mrnnet.data.faces import Detection, FaceFrame, crop_faces
from mma_mrnnet.data.feature_tables import ROW_COLUMNS, TABLE_SUFFIX, exactly, read_feature_table
from mma_mrnnet.data.video import VIDEO_SUFFIXES, VideoError, read_frames
from mma_mrnnet.hub import load_pretrained
from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.model.labels import action_unit_name
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

BOX_NAMES = ("box_x", "box_y", "box_width", "box_height")
NO_FACE = "no face in this video"
NO_ROW = "no row of this table has a face and a number in each column that the model reads"
FEW_FRAMES = 4  # 2 s: a recurrent network has seen hardly anything below (our choice)


@dataclass
class VideoPrediction:
    """What the model says of one clip.

    Attributes:
        file: the clip's path, as given: a video's, or that of a table of features.
        intensities: one number in [0, 1] for each target, under its label name; NaN where `error` is set.
        frames: one row for every frame that was looked at (see `frame_columns`); NaN where there was no face. Of a
            table of features the rows that were used.
        duration_s: length of what was decoded; NaN for a table without time stamps.
        error: why there are no intensities (no face), else None.
        warning: what was lost of a damaged file, that a long clip was cut, that hardly a frame had a face; or None.
        calibrated: False where the outputs of different targets are not on one scale.
        relative: True where the labels were relative within a clip: 1 is the strongest reaction of its own clip,
            however faint, so that intensities of two clips do not compare one by one.
        simulated: True where the targets that the model learnt came from a simulator.
        prior_only: names of action units that no label ever reached in training.
        track: number of the followed person in the clip.
    """

    file: str
    intensities: dict[str, float]
    frames: pd.DataFrame
    duration_s: float
    error: str | None = None
    warning: str | None = None
    calibrated: bool = False
    relative: bool = True
    simulated: bool = False
    prior_only: tuple[str, ...] = ()
    track: int = 0

    @property
    def frames_sampled(self) -> int:
        """Frames that were looked at: the rows of `frames`."""
        return len(self.frames)

    @property
    def frames_with_face(self) -> int:
        """Frames with a face."""
        return int(self.frames["face"].sum())

    def ranked(self) -> list[tuple[str, float]]:
        """The targets, strongest first.

        Raises:
            ValueError: the checkpoint is not calibrated (its outputs are on scales of their own), or there was no face.
        """
        if self.error is not None:
            raise ValueError(f"{self.file}: {self.error}")
        if not self.calibrated:
            raise ValueError("this checkpoint is not calibrated: outputs of different targets do not compare")
        return sorted(self.intensities.items(), key=lambda item: item[1], reverse=True)

    def summary(self) -> dict[str, object]:
        """The clip's row of the table that `mma-mrnnet predict` writes."""
        return {
            "file": self.file,
            "track": self.track,
            "duration_s": round(self.duration_s, 3),
            "frames_sampled": self.frames_sampled,
            "frames_with_face": self.frames_with_face,
            **self.intensities,
            "error": self.error,
            "note": "; ".join(self.notes()),
        }

    def notes(self) -> list[str]:
        """What must stand wherever the intensities are shown; with the clip's warning, where there is one."""
        notes = [] if self.warning is None else [self.warning]
        if self.error is not None:
            return notes
        return notes + standing_notes(self.simulated, self.relative, self.calibrated)


def standing_notes(simulated: bool, relative: bool, calibrated: bool) -> list[str]:
    """What must stand wherever a model's intensities are shown, of its config's flags of these names."""
    notes = []
    if simulated:
        notes.append("learnt from a simulator, not from people's reports")
    if relative:
        notes.append("relative within the clip")
    if not calibrated:
        notes.append("not calibrated: targets do not compare")
    return notes


@cache
def default_checkpoint() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """The shipped checkpoint, loaded once a process; for our own use, so that a caller's changes do not reach it."""
    return load_pretrained()


def frame_columns(config: MMAMRNNetConfig) -> list[str]:
    """Columns of the per-frame table: file, track, frame, time_s, face, the box, then the affect channels.

    A model that reads tables of features sees no box, and has its features in the affect's place.
    """
    return [*ROW_COLUMNS, *(BOX_NAMES if config.feature_names is None else ()), *config.input_names]


def clip_suffixes(config: MMAMRNNetConfig) -> frozenset[str]:
    """Endings, in lower case, of the files that a model's clips lie in."""
    return VIDEO_SUFFIXES if config.feature_names is None else frozenset({TABLE_SUFFIX})


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
    config = _stage_2_config(model)
    _require_a_video(path, config)
    table_rate = None if every_frame else (config.sampling_fps if fps is None else fps)
    frames = read_frames(path, config.sampling_fps, table_rate)
    rows = list(frames_with_affect(crop_faces(frames, config.mma_config.image_size), model.mma, processor))
    sampled = [affect for frame, affect in rows if frame.due[0] and affect is not None]

    error = None
    if not sampled:
        seen = any(affect is not None for _, affect in rows)
        error = f"no face in the frames sampled at {config.sampling_fps:g} a second" if seen else NO_FACE
    intensities = _intensities(sampled, model, processor)
    cautions = [part for part in (frames.warning, _caution(len(sampled), processor)) if part]
    table = _table(str(path), [(frame, affect) for frame, affect in rows if frame.due[1]], config)
    return VideoPrediction(
        file=str(path),
        intensities=intensities,
        frames=table,
        duration_s=frames.duration_s,
        error=error,
        warning="; ".join(cautions) or None,
        calibrated=config.calibrated,
        relative=config.relative_labels,
        simulated=config.simulated_labels,
        prior_only=tuple(map(action_unit_name, config.prior_only_action_units)),
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


def predict_table(
    path: str | os.PathLike[str], model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor
) -> VideoPrediction:
    """The intensities of a clip whose frames are a table of features.

    The table is read as in training (see `read_feature_table`): the columns that the model names, one person, the
    model's frame rate where there are time stamps.

    Args:
        path: a CSV file.
        model: a stage-2 model with `config.feature_names`.
        processor: the model's processor.

    Returns:
        A `VideoPrediction`, its `frames` the rows that were used. A table without a usable row has NaN intensities and
        says so in `error`.

    Raises:
        ValueError: a model that reads no tables, a column that is missing, a table that cannot be read.
    """
    model, processor = checked_pair(model, processor)
    config = _stage_2_config(model)
    if config.feature_names is None:
        raise ValueError(f"{path}: this model reads videos, not tables; a model trained on such tables is needed")
    if Path(path).suffix.lower() != TABLE_SUFFIX:
        raise ValueError(f"{path}: this model reads tables of features ({TABLE_SUFFIX}); a video needs another model")
    table = read_feature_table(path, exactly(config.feature_names), config.sampling_fps)
    used, left_out = len(table.values), table.frames_sampled - len(table.values)
    frames = pd.DataFrame(table.values, columns=list(table.names))
    times = np.full(used, np.nan) if table.times_s is None else table.times_s.round(6)
    for place, values in enumerate((str(path), 0, table.frames, times, np.ones(used, bool))):
        frames.insert(place, ROW_COLUMNS[place], values)
    cautions = [
        f"{left_out} of {table.frames_sampled} frames left out: no face, or a number missing" if left_out else None,
        _caution(used, processor),
    ]
    return VideoPrediction(
        file=str(path),
        intensities=_intensities(list(table.values), model, processor),
        frames=frames,
        duration_s=table.duration_s,
        error=None if used else NO_ROW,
        warning="; ".join(part for part in cautions if part) or None,
        calibrated=config.calibrated,
        relative=config.relative_labels,
        simulated=config.simulated_labels,
    )


def _stage_2_config(model: MMAModel | MMAMRNNetForIntensity) -> MMAMRNNetConfig:
    if model.config.model_type != "mma_mrnnet":
        raise ValueError(f"a stage-1 model ({model.config.model_type}) gives no intensities; a stage-2 one is needed")
    return model.config


def _intensities(
    frames: list[np.ndarray], model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor
) -> dict[str, float]:
    """One number for each target from the (A,) float32 of each frame; NaN without frames."""
    names = model.config.label_names
    if not frames:
        return dict.fromkeys(names, float("nan"))
    affect, frame_mask = processor.pad([np.stack(frames)])  # (1, T, A), (1, T)
    with torch.inference_mode():
        output = model(affect=affect.to(model.device), frame_mask=frame_mask.to(model.device))
    return dict(zip(names, output.intensities[0].float().tolist(), strict=True))


def _caution(faces: int, processor: MMAMRNNetVideoProcessor) -> str | None:
    """What to say of a clip with more frames with a face than the model takes, or with hardly any."""
    if faces > processor.num_frames:
        return f"{faces} frames with a face {processor.shortened()} {processor.num_frames}"
    if 0 < faces < FEW_FRAMES:
        return f"rests on {faces} frame{'s' * (faces > 1)} with a face: hardly a clip"
    return None


def clip_table(predictions: Iterable[VideoPrediction]) -> pd.DataFrame:
    """One row a clip: file, track, duration_s, frames_sampled, frames_with_face, the intensities, error, note."""
    return pd.DataFrame([prediction.summary() for prediction in predictions])


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes a table as .csv, .json or .parquet, beside its target and renamed.

    Raises:
        ValueError: another ending, a folder that is not there, or a path that is a folder.
    """
    path = Path(path)
    check_table_path(path)
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        if path.suffix.lower() == ".csv":
            table.to_csv(staging, index=False)
        elif path.suffix.lower() == ".json":
            table.to_json(staging, orient="records", indent=1, double_precision=6)
        else:
            table.to_parquet(staging, index=False)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def check_table_path(path: Path) -> None:
    """Raises ValueError where a table cannot be written: the ending, a folder that is not there, or a folder itself."""
    if path.suffix.lower() not in (".csv", ".json", ".parquet"):
        raise ValueError(f"{path}: a table is written as .csv, .json or .parquet; got {path.suffix or 'no ending'!r}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: the folder {path.absolute().parent} does not exist")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not a file to write")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error


def checked_pair(
    model: MMAModel | MMAMRNNetForIntensity | None, processor: MMAMRNNetVideoProcessor | None
) -> tuple[MMAModel | MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Both as given, the model in eval mode, or the shipped ones for None and None; ValueError for one alone."""
    if (model is None) != (processor is None):
        raise ValueError("give model and processor together, or neither for the checkpoint that ships")
    if model is None:
        return default_checkpoint()
    return model.eval(), processor


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
