"""Predict the affect of each face in photos, with stage 1 only."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mma_mrnnet.faces.detection import FaceDetector, align_face
from mma_mrnnet.prediction.checkpoint import Engine, ModelOrName, open_engine
from mma_mrnnet.video.pictures import read_picture
from mma_mrnnet.video.sources import local_file

if TYPE_CHECKING:
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


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
    processor: "MMAMRNNetVideoProcessor | None" = None,
    *,
    engine: str | None = None,
    revision: str = "main",
) -> list[list[FacePrediction]]:
    """Predict valence-arousal, expressions and action units of every face of each photo.

    Args:
        images: paths, URLs, bytes, file objects or data-set entries (see `local_file`), PIL images,
            or (H, W, 3) uint8 RGB arrays or tensors.
        model: a model of either stage, its folder or Hub repository, or an opened `Engine`; None:
            the bundled one.
        processor: required if `model` is a model object.
        engine: `onnx` or `torch`; None as in `open_engine`.
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
    opened = open_engine(model, processor, engine=engine, revision=revision)
    if opened.facts.image_size is None:
        raise ValueError("this model reads tables of features and has no extractor for images")
    detector = FaceDetector()
    return [_predict_faces(_read_photo(image), detector, opened) for image in images]


def predict_image(
    image: Any,
    model: ModelOrName = None,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    *,
    engine: str | None = None,
    revision: str = "main",
) -> list[FacePrediction]:
    """Predict the affect of every face of one photo; see `predict_images`."""
    return predict_images([image], model, processor, engine=engine, revision=revision)[0]


def _predict_faces(
    pixels: np.ndarray, detector: FaceDetector, engine: Engine
) -> list[FacePrediction]:
    names, size = engine.facts.affect_names, engine.facts.image_size
    assert size is not None
    detections = detector(pixels)
    crops = [align_face(pixels, found.landmarks, size) for found in detections]
    rows = engine.extract_affect(crops)
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
