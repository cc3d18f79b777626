"""Compute affect from face crops by stage 1, for prediction and training alike."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mma_mrnnet.faces.tracks import PeopleFrame

if TYPE_CHECKING:  # predicting with onnxruntime must not cost PyTorch's import
    import torch

    from mma_mrnnet.model.modeling_mma import MMAModel
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

CHUNK = 32  # frames per batch


def extract_people(
    frames: Iterable[PeopleFrame], rows_of: Callable[[list[np.ndarray]], np.ndarray]
) -> Iterator[tuple[PeopleFrame, dict[int, np.ndarray]]]:
    """Yield each frame without crops, and one row of numbers per track.

    `frames` come from `crop_faces`. `rows_of` maps N crops of one person, (S, S, 3) uint8 RGB, to
    (N, width) float32. It sees one person at a time, so that the rows do not depend on other
    people, to the last bit.
    """
    stream = iter(frames)
    while chunk := list(islice(stream, CHUNK)):
        tracks = sorted({track for frame in chunk for track in frame.crops})
        rows = {}
        for track in tracks:
            crops = [frame.crops[track] for frame in chunk if track in frame.crops]
            rows[track] = iter(rows_of(crops))
        for frame in chunk:
            yield frame.without_crops(), {track: next(rows[track]) for track in frame.crops}


def extract_affect(
    crops: list[np.ndarray], extractor: "MMAModel", processor: "MMAMRNNetVideoProcessor"
) -> np.ndarray:
    """Return (N, A) float32 affect of N crops, (H, W, 3) uint8 RGB of any size, by PyTorch."""
    import torch

    if not crops:
        return np.zeros((0, extractor.config.affect_size), np.float32)
    with torch.inference_mode():
        pixel_values = scale_crops(crops, processor)
        return extractor(pixel_values.to(extractor.device, extractor.dtype)).affect.cpu().numpy()


def scale_crops(crops: list[np.ndarray], processor: "MMAMRNNetVideoProcessor") -> "torch.Tensor":
    """Return (N, 3, S, S) float32 in [-1, 1] from N >= 1 crops of any size."""
    import torch

    if len({crop.shape for crop in crops}) == 1:
        return processor.scale(np.stack(crops))
    return torch.cat([processor.scale(crop[None]) for crop in crops])
