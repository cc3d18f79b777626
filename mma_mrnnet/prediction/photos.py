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
from mma_mrnnet.prediction import checked_pair


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
            its processor or without an extractor.
        FileNotFoundError: a file that is not there.
    """
    if isinstance(images, str | os.PathLike):
        raise ValueError(
            f"images must be a list of photos; got one, {str(images)!r} (predict_image takes one)"
        )
    model, processor = checked_pair(model, processor)
    extractor = getattr(
        model, "mma", model
    )  # not by class: a model of the Hub's own code has another one
    if extractor is None:
        raise ValueError("this model reads tables of features and holds no extractor for photos")
    names = affect_names(extractor.config.action_units)
    detector = FaceDetector()
    predictions = []
    for image in images:
        pixels = _read_image(image)
        detections = detector(pixels)
        crops = [
            align_face(pixels, found.landmarks, extractor.config.image_size) for found in detections
        ]
        affect = extract_affect(crops, extractor, processor)
        predictions.append(
            [
                FacePrediction(
                    found.box, found.score, dict(zip(names, values.tolist(), strict=True)), crop
                )
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
        raise ValueError(
            f"{image}: not an image that can be read ({type(error).__name__})"
        ) from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
