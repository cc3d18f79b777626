"""Place faces between two searched frames."""

import numpy as np

from mma_mrnnet.faces.detection import Detection

SAME_FACE = 0.9  # correlation of aligned crops: below it, a face is not interpolated (our choice)


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
