"""Photos -> the affect of each face, by stage 1 alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.faces.detection import FaceDetector, align_face
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.prediction.checkpoint import get_extractor, resolve_checkpoint

Photo = str | os.PathLike[str] | np.ndarray | Image.Image
"""A file, a PIL image, or an (H, W, 3) uint8 RGB array."""


@dataclass
class FacePrediction:
    """What stage 1 says of one face of a photo.

    Attributes:
        box: x, y, width, height in pixels of the photo.
        score: the detector's confidence in [0, 1].
        affect: valence, arousal, expression and action-unit probabilities by `affect_names`.
        crop: (S, S, 3) uint8 RGB, the input of the extractor.
    """

    box: tuple[float, float, float, float]
    score: float
    affect: dict[str, float]
    crop: np.ndarray = field(repr=False)


def predict_images(
    images: Sequence[Photo],
    model: MMAModel | MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
) -> list[list[FacePrediction]]:
    """Predict valence-arousal, expressions and action units of every face of each photo.

    Args:
        images: files, PIL images, or (H, W, 3) uint8 RGB arrays.
        model: a stage-1 or stage-2 model; None takes the bundled checkpoint.
        processor: the model's processor; needed with `model`.

    Returns:
        For each photo a list of faces, the largest first; empty if there is none.

    Raises:
        ValueError: a file that is no image, an array of another shape, one path instead of a list,
            a model without its processor or without an extractor.
        FileNotFoundError: a file does not exist.
    """
    if isinstance(images, str | os.PathLike):
        raise ValueError(
            f"images must be a list of photos; got one, {str(images)!r} (predict_image takes one)"
        )
    model, processor = resolve_checkpoint(model, processor)
    extractor = get_extractor(model)
    names = affect_names(extractor.config.action_units)
    size = extractor.config.image_size
    detector = FaceDetector()
    predictions = []
    for image in images:
        pixels = _read_image(image)
        detections = detector(pixels)
        crops = [align_face(pixels, found.landmarks, size) for found in detections]
        rows = extract_affect(crops, extractor, processor)
        affects = [dict(zip(names, row.tolist(), strict=True)) for row in rows]
        predictions.append(
            [
                FacePrediction(found.box, found.score, affect, crop)
                for found, affect, crop in zip(detections, affects, crops, strict=True)
            ]
        )
    return predictions


def predict_image(
    image: Photo,
    model: MMAModel | MMAMRNNetForIntensity | None = None,
    processor: MMAMRNNetVideoProcessor | None = None,
) -> list[FacePrediction]:
    """Predict the affect of every face of one photo; see `predict_images`."""
    return predict_images([image], model, processor)[0]


def _read_image(image: Photo) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, upright."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    try:
        with Image.open(image) as file:
            return _upright_rgb(file)
    except FileNotFoundError:
        raise
    # Pillow's error for a damaged file depends on the format; it refuses huge ones by its own rule.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{image}: not an image that can be read ({type(error).__name__})"
        ) from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
