"""Clips of face crops -> `pixel_values` and `frame_mask`. The only place that scales and pads."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.video_processing_utils import BaseVideoProcessor

logger = logging.getLogger(__name__)

SCALING = (
    "size",
    "do_resize",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""Settings of transformers' video processors that change pixel values here."""


def thinned_indices(length: int, most: int) -> Tensor:
    """Which of `length` frames stay where at most `most` may: evenly spread, both ends kept; (min(l, m),) int64."""
    if length <= most:
        return torch.arange(length)
    return torch.linspace(0, length - 1, most, dtype=torch.float64).round().long()


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor of the values; read-only arrays, as pandas gives them, are copied (torch cannot share those)."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


class MMAMRNNetVideoProcessor(BaseVideoProcessor):
    """Turns clips of aligned face crops into padded, masked batches; pads affect by the same function.

    A crop becomes (x - 127.5) / 127.5, bilinearly resized to `size` where it has another one. Clips are padded at the
    end, with zeros, to `num_frames`; longer ones are thinned evenly, with a warning (our choice).
    """

    resample = PILImageResampling.BILINEAR
    size = {"height": 112, "width": 112}  # noqa: RUF012 - transformers' own form of a default
    image_mean = [0.5, 0.5, 0.5]  # noqa: RUF012
    image_std = [0.5, 0.5, 0.5]  # noqa: RUF012
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = False
    num_frames = 30
    model_input_names = ["pixel_values", "frame_mask"]  # noqa: RUF012

    def pad(self, sequences: Sequence[Tensor | np.ndarray], num_frames: int | None = None) -> tuple[Tensor, Tensor]:
        """Pads per-frame values of B clips to one length; used for crops and for affect alike.

        Args:
            sequences: B arrays (L_b, ...) of real frames in time order, all alike behind the first axis; L_b may be 0.
            num_frames: T; None takes the processor's own.

        Returns:
            values: (B, T, ...) in the arrays' own dtype, zeros behind each clip's last frame.
            frame_mask: (B, T) bool, True for real frames.

        Raises:
            ValueError: no clip at all, or clips whose frames differ in shape.
        """
        most = self.num_frames if num_frames is None else num_frames
        if len(sequences) == 0:
            raise ValueError("at least one clip is needed; got an empty list")
        tensors = [_tensor(sequence) for sequence in sequences]
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
        if len(shapes) != 1:
            raise ValueError(f"all clips' frames must have one shape; got {sorted(shapes)}")
        longest = max(len(tensor) for tensor in tensors)
        if longest > most:
            logger.warning("a clip of %d frames is thinned evenly to %d", longest, most)
        values = tensors[0].new_zeros(len(tensors), most, *shapes.pop())
        frame_mask = values.new_zeros(len(tensors), most, dtype=torch.bool)
        for row, tensor in enumerate(tensors):
            kept = thinned_indices(len(tensor), most)
            values[row, : len(kept)] = tensor[kept]
            frame_mask[row, : len(kept)] = True
        return values, frame_mask

    def scale(self, crops: Tensor | np.ndarray) -> Tensor:
        """Pixel values of N crops.

        Args:
            crops: (N, H, W, 3) or (N, 3, H, W) uint8 RGB.

        Returns:
            (N, 3, S, S) float32 in [-1, 1].

        Raises:
            ValueError: another shape or type.
        """
        frames = _tensor(crops)
        if frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[-1]):
            raise ValueError(f"crops must be (N, H, W, 3) or (N, 3, H, W) RGB; got {tuple(frames.shape)}")
        if frames.shape[-1] == 3:
            frames = frames.permute(0, 3, 1, 2)  # (N, 3, H, W)
        if frames.dtype != torch.uint8:
            raise ValueError(f"crops must be uint8 in 0..255; got {frames.dtype}")
        return self._pixel_values(
            frames,
            size=SizeDict(**dict(self.size)),
            do_resize=self.do_resize,
            resample=self.resample,
            do_rescale=self.do_rescale,
            rescale_factor=self.rescale_factor,
            do_normalize=self.do_normalize,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )

    def _pixel_values(
        self, frames: Tensor, *, size: SizeDict, do_resize: bool, resample: Any, **scaling: Any
    ) -> Tensor:
        """(N, 3, H, W) to (N, 3, S, S), resized only where it has to be, then rescaled and normalised."""
        if do_resize and tuple(frames.shape[-2:]) != (size.height, size.width):
            if len(frames) == 0:
                return frames.new_zeros(0, 3, size.height, size.width, dtype=torch.float32)
            frames = self.resize(frames, size=size, resample=resample)
        return self.rescale_and_normalize(frames.contiguous(), **scaling)

    def _preprocess(
        self, videos: list[Tensor], num_frames: int | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Transformers' hook behind `__call__`: (T, 3, H, W) clips to a padded batch, by the call's own settings."""
        settings = {name: kwargs[name] for name in SCALING}
        if settings["do_rescale"] and any(video.dtype != torch.uint8 for video in videos):
            raise ValueError("clips must be uint8 in 0..255; give floats in 0..1 with do_rescale=False")
        pixel_values, frame_mask = self.pad([self._pixel_values(video, **settings) for video in videos], num_frames)
        return BatchFeature(data={"pixel_values": pixel_values, "frame_mask": frame_mask}, tensor_type=return_tensors)


MMAMRNNetVideoProcessor.register_for_auto_class()
