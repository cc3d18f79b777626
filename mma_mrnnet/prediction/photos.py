"""Predict the affect of each face in photos, with stage 1 only."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.faces.detection import FaceDetector, align_face
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.prediction.checkpoint import (
    ModelOrName,
    evaluating,
    get_extractor,
    resolve_checkpoint,
)
from mma_mrnnet.video.pictures import read_picture
from mma_mrnnet.video.sources import local_file


@dataclass
class FacePrediction:
    """Stage 1's output for one face of a photo.

    `box` is x, y, width, height in pixels; `score` the detector's confidence in [0, 1]; `affect`
    values by `affect_names`; `crop` (S, S, 3) uint8 RGB, the input of the extractor.
    """

    box: tuple[float, float, float, float]
    score: float
    affect: dict[str, float]
    crop: np.ndarray = field(repr=False)


def predict_images(
    images: Iterable[Any],
    model: ModelOrName = None,
    processor: MMAMRNNetVideoProcessor | None = None,
    *,
    revision: str = "main",
) -> list[list[FacePrediction]]:
    """Predict valence-arousal, expressions and action units of every face of each photo.

    Args:
        images: paths, URLs, bytes, file objects or data-set entries (see `local_file`), PIL images,
            or (H, W, 3) uint8 RGB arrays or tensors.
        model: a model of either stage, or its folder or Hub repository; None: the bundled one.
        processor: required if `model` is an object.
        revision: branch, tag or commit of a Hub repository.

    Returns:
        A list of faces for each photo, largest first; empty without a face.

    Raises:
        ValueError: not an image, an array of another shape, a single photo instead of a list,
            a model without its processor or without an extractor.
        FileNotFoundError: a file does not exist.
    """
    if isinstance(images, str | bytes | os.PathLike | Image.Image | Mapping):
        what = repr(str(images)) if isinstance(images, str | os.PathLike) else type(images).__name__
        raise ValueError(
            f"images must be a list of photos; got one, {what[:200]} (predict_image takes one)"
        )
    checkpoint, processor = resolve_checkpoint(model, processor, revision)
    extractor = get_extractor(checkpoint)
    detector = FaceDetector()
    with evaluating(checkpoint):
        return [
            _predict_faces(_read_photo(image), detector, extractor, processor) for image in images
        ]


def predict_image(
    image: Any,
    model: ModelOrName = None,
    processor: MMAMRNNetVideoProcessor | None = None,
    *,
    revision: str = "main",
) -> list[FacePrediction]:
    """Predict the affect of every face of one photo; see `predict_images`."""
    return predict_images([image], model, processor, revision=revision)[0]


def _predict_faces(
    pixels: np.ndarray,
    detector: FaceDetector,
    extractor: MMAModel,
    processor: MMAMRNNetVideoProcessor,
) -> list[FacePrediction]:
    names, size = affect_names(extractor.config.action_units), extractor.config.image_size
    detections = detector(pixels)
    crops = [align_face(pixels, found.landmarks, size) for found in detections]
    rows = extract_affect(crops, extractor, processor)
    affects = [dict(zip(names, row.tolist(), strict=True)) for row in rows]
    return [
        FacePrediction(found.box, found.score, affect, crop)
        for found, affect, crop in zip(detections, affects, crops, strict=True)
    ]


def _read_photo(image: Any) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, upright."""
    if isinstance(image, Image.Image):
        return read_picture(image)
    if hasattr(image, "shape") and hasattr(image, "dtype"):
        return np.asarray(image.cpu() if hasattr(image, "cpu") else image)
    with local_file(image, kind="photo") as local:
        return read_picture(local.path, local.name)
