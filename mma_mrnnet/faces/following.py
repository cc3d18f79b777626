"""Search only where the faces were, and place faces between two searched frames."""

from dataclasses import dataclass

import numpy as np

from mma_mrnnet.faces.detection import Detection, FaceDetector

WHOLE_EVERY_S = 0.4  # newcomers are seen by then, within half a second at 10 frames a second
MISSING_S = 2.0  # after a loss, whole images are searched for so long (our choice)
SAME_SCENE = 0.8  # correlation of images: below it, the scene was cut (our choice)
SAME_FACE = 0.9  # correlation of aligned crops: below it, a face is not interpolated (our choice)


@dataclass(frozen=True, eq=False)
class Sighting:
    """The faces of a searched frame, largest first, and what the next search must know.

    Attributes:
        thumbnail: a few of the image's pixels.
        whole_s: when a whole image was searched last.
        loss_s: when fewer faces were found than in the frame before; -inf: never.
    """

    faces: list[Detection]
    thumbnail: np.ndarray
    whole_s: float
    loss_s: float = -np.inf


def search_faces(
    detector: FaceDetector, image: np.ndarray, time_s: float, last: Sighting | None
) -> Sighting:
    """Find all faces of an image, around those of the last searched frame if possible.

    The whole image is searched if there was no face, every `WHOLE_EVERY_S`, after a cut, and as
    soon as a face is missing, for `MISSING_S`. So only newcomers may be seen later than by a
    search of every whole image, and only by `WHOLE_EVERY_S`.
    """
    thumbnail = _thumbnail(image)
    if last is None:
        return Sighting(detector(image), thumbnail, time_s)
    follows = (
        last.faces
        and time_s - last.whole_s < WHOLE_EVERY_S
        and time_s - last.loss_s > MISSING_S
        and last.faces[0].picture == (image.shape[1], image.shape[0])
        and correlation(thumbnail, last.thumbnail) >= SAME_SCENE
    )
    found = detector.search_near(image, last.faces) if follows else None
    if found is not None and len(found) >= len(last.faces):
        return Sighting(found, thumbnail, last.whole_s, last.loss_s)
    found = detector(image)
    loss_s = time_s if len(found) < len(last.faces) else last.loss_s
    return Sighting(found, thumbnail, time_s, loss_s)


def interpolate_face(before: Detection, after: Detection, share: float) -> Detection:
    """Place a face between two frames; `share` in [0, 1] is the time passed since `before`."""
    box = [(1 - share) * a + share * b for a, b in zip(before.box, after.box, strict=True)]
    return Detection(
        (box[0], box[1], box[2], box[3]),
        (1 - share) * before.landmarks + share * after.landmarks,
        (1 - share) * before.score + share * after.score,
        before.picture,
        interpolated=True,
    )


def shows_same_face(crop: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two aligned crops of neighbouring frames show one face in one place.

    False at a cut, if something covers the face, or if it is not where it was interpolated.
    """
    step = max(len(crop) // 28, 1)
    return correlation(crop[::step, ::step], other[::step, ::step]) >= SAME_FACE


def correlation(image: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two images' pixels; 1 for two constant ones."""
    a, b = image.astype(np.float32).ravel(), other.astype(np.float32).ravel()
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b + 1e-3) / (np.sqrt((a @ a) * (b @ b)) + 1e-3))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return about 32 x 32 pixels of an image."""
    height, width = image.shape[:2]
    return image[:: max(height // 32, 1), :: max(width // 32, 1)].copy()
