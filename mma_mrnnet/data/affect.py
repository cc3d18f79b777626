"""Face crops -> affect by stage 1: the one way for prediction and for training."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from mma_mrnnet.data.faces import FaceFrame
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

CHUNK = 32  # crops that go through the extractor at once: memory stays small, batches stay efficient


def frames_with_affect(
    frames: Iterable[FaceFrame], extractor: MMAModel, processor: MMAMRNNetVideoProcessor
) -> Iterator[tuple[FaceFrame, np.ndarray | None]]:
    """Each frame, its crop let go, with its affect (A,) float32; None without a face."""
    stream = iter(frames)
    while chunk := list(islice(stream, CHUNK)):
        affect = iter(affect_of([frame.crop for frame in chunk if frame.crop is not None], extractor, processor))
        for frame in chunk:
            kept = FaceFrame(frame.index, frame.time_s, frame.due, frame.detection, None)
            yield kept, None if frame.crop is None else next(affect)


@torch.inference_mode()
def affect_of(crops: list[np.ndarray], extractor: MMAModel, processor: MMAMRNNetVideoProcessor) -> np.ndarray:
    """Affect of N crops, (H, W, 3) uint8 RGB each and of any size; (N, A) float32."""
    if not crops:
        return np.zeros((0, extractor.config.affect_size), np.float32)
    pixel_values = scaled(crops, processor)
    return extractor(pixel_values.to(extractor.device, extractor.dtype)).affect.cpu().numpy()


def scaled(crops: list[np.ndarray], processor: MMAMRNNetVideoProcessor) -> torch.Tensor:
    """Pixel values of N >= 1 crops of any size; (N, 3, S, S) float32 in [-1, 1]."""
    if len({crop.shape for crop in crops}) == 1:
        return processor.scale(np.stack(crops))
    return torch.cat([processor.scale(crop[None]) for crop in crops])
