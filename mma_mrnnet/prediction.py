"""A video file -> a VideoPrediction; photos -> the affect of each face; and the tables of both."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from mma_mrnnet.data.affect import affect_of, frames_with_affect
from mma_mrnnet.data.faces import Detection, FaceDetector, FaceFrame, align_face, crop_faces
from mma_mrnnet.data.video import read_frames
from mma_mrnnet.hub import load_pretrained
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.labels import action_unit_name, affect_names
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

BOX_NAMES = ("box_x", "box_y", "box_width", "box_height")
NO_FACE = "no face in this video"
FEW_FRAMES = 4  # 2 s: a recurrent network has seen hardly anything below (our choice)


@dataclass
class VideoPrediction:
    """What the model says of one clip.

    Attributes:
        file: the clip's path, as given.
        intensities: one number in [0, 1] for each target, under its label name; NaN where `error` is set.
        frames: one row for every frame that was looked at (see `frame_columns`); NaN where there was no face.
        duration_s: length of what was decoded.
        error: why there are no intensities (no face), else None.
        warning: what was lost of a damaged file, that a long clip was thinned, that hardly a frame had a face; or None.
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
        if self.simulated:
            notes.append("learnt from a simulator, not from people's reports")
        if self.relative:
            notes.append("relative within the clip")
        if not self.calibrated:
            notes.append("not calibrated: targets do not compare")
        return notes


@dataclass
class FacePrediction:
    """What stage 1 says of one face of a photo.

    Attributes:
        box: x, y, width, height in pixels of the photo.
        score: the detector's confidence in [0, 1].
        affect: valence, arousal, expression and action-unit probabilities under the names of `affect_names`.
        crop: (S, S, 3) uint8 RGB, what the extractor saw.
    """

    box: tuple[float, float, float, float]
    score: float
    affect: dict[str, float]
    crop: np.ndarray = field(repr=False)


@cache
def default_checkpoint() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """The shipped checkpoint, loaded once a process; for our own use, so that a caller's changes do not reach it."""
    return load_pretrained()


def frame_columns(config: MMAConfig) -> list[str]:
    """Columns of the per-frame table: file, track, frame, time_s, face, the box, then the affect channels."""
    return ["file", "track", "frame", "time_s", "face", *BOX_NAMES, *affect_names(config.action_units)]


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
        ValueError: a model without its processor or of stage 1, a rate that is not a positive number, or both `fps` and
            `every_frame`.
    """
    if every_frame and fps is not None:
        raise ValueError(f"give either fps or every_frame; got fps={fps!r} and every_frame=True")
    model, processor = _checked_pair(model, processor)
    config = model.config
    if config.model_type != "mma_mrnnet":
        raise ValueError(f"a stage-1 model ({config.model_type}) gives no intensities; a stage-2 one is needed")
    table_rate = None if every_frame else (config.sampling_fps if fps is None else fps)
    frames = read_frames(path, config.sampling_fps, table_rate)
    rows = list(frames_with_affect(crop_faces(frames, config.mma_config.image_size), model.mma, processor))
    sampled = [affect for frame, affect in rows if frame.due[0] and affect is not None]

    error = None
    intensities = dict.fromkeys(config.label_names, float("nan"))
    if sampled:
        affect, frame_mask = processor.pad([np.stack(sampled)])  # (1, T, A), (1, T)
        with torch.inference_mode():
            output = model(affect=affect.to(model.device), frame_mask=frame_mask.to(model.device))
        intensities = dict(zip(config.label_names, output.intensities[0].float().tolist(), strict=True))
    else:
        seen = any(affect is not None for _, affect in rows)
        error = f"no face in the frames sampled at {config.sampling_fps:g} a second" if seen else NO_FACE
    cautions = [part for part in (frames.warning, _caution(len(sampled), processor.num_frames)) if part]
    table = _table(str(path), [(frame, affect) for frame, affect in rows if frame.due[1]], config.mma_config)
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
        prior_only=tuple(map(action_unit_name, config.mma_config.prior_only_action_units)),
    )


def _caution(faces: int, most: int) -> str | None:
    """What to say of a clip with more frames with a face than the model takes, or with hardly any."""
    if faces > most:
        return f"{faces} frames with a face thinned evenly to {most}"
    if 0 < faces < FEW_FRAMES:
        return f"rests on {faces} frame{'s' * (faces > 1)} with a face: hardly a clip"
    return None


def predict_images(
    images: Sequence[str | os.PathLike[str] | np.ndarray | Image.Image],
    model: MMAModel | MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
) -> list[list[FacePrediction]]:
    """Affect of every face of each photo (stage 1 alone): valence-arousal, expressions, action units.

    Args:
        images: files, PIL images, or (H, W, 3) uint8 RGB arrays.
        model: a stage-1 or stage-2 model; None takes the checkpoint that ships with the package.
        processor: the model's processor; needed with `model`.

    Returns:
        For each photo a list of faces, the largest first; empty where there is none.

    Raises:
        ValueError: a file that is no image, an array of another shape, one path where a list belongs, a model without
            its processor.
        FileNotFoundError: a file that is not there.
    """
    if isinstance(images, str | os.PathLike):
        raise ValueError(f"images must be a list of photos; got one, {str(images)!r} (predict_image takes one)")
    model, processor = _checked_pair(model, processor)
    extractor = getattr(model, "mma", model)  # not by class: a model of the Hub's own code has another one
    names = affect_names(extractor.config.action_units)
    detector = FaceDetector()
    predictions = []
    for image in images:
        pixels = _read_image(image)
        detections = detector(pixels)
        crops = [align_face(pixels, found.landmarks, extractor.config.image_size) for found in detections]
        affect = affect_of(crops, extractor, processor)
        predictions.append(
            [
                FacePrediction(found.box, found.score, dict(zip(names, values.tolist(), strict=True)), crop)
                for found, values, crop in zip(detections, affect, crops, strict=True)
            ]
        )
    return predictions


def predict_image(
    image: str | os.PathLike[str] | np.ndarray | Image.Image,
    model: MMAModel | MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
) -> list[FacePrediction]:
    """Affect of every face of one photo; see `predict_images`."""
    return predict_images([image], model, processor)[0]


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


def _checked_pair(
    model: MMAModel | MMAMRNNetForIntensity | None, processor: MMAMRNNetVideoProcessor | None
) -> tuple[MMAModel | MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    if (model is None) != (processor is None):
        raise ValueError("give model and processor together, or neither for the checkpoint that ships")
    if model is None:
        return default_checkpoint()
    return model.eval(), processor


def _table(file: str, rows: list[tuple[FaceFrame, np.ndarray | None]], config: MMAConfig) -> pd.DataFrame:
    missing = np.full(config.affect_size, np.nan, np.float32)
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


def _read_image(image: str | os.PathLike[str] | np.ndarray | Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    try:
        with Image.open(image) as file:
            return _upright_rgb(file)
    except FileNotFoundError:
        raise
    # What Pillow raises on a damaged file depends on the format; a huge one is refused by its own rule.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{image}: not an image that can be read ({type(error).__name__})") from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
