"""Convert clips of face crops to `pixel_values` and `frame_mask`: all scaling and padding."""

import importlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, ViTImageProcessor
from transformers.image_utils import (
    PILImageResampling,
    SizeDict,
    infer_channel_dimension_format,
)
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .clip_length import describe_shortening, kept_indices
from .configuration_mma_mrnnet import (
    MOST_FRAMES,
    MOST_IMAGE_SIZE,
    MMAConfig,
    MMAMRNNetConfig,
    WithCard,
)

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
"""Settings of transformers' video processors that change pixel values."""


def _as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """Return a tensor; copies read-only arrays (as from pandas), which torch cannot share."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


def _refuse_cropping(do_center_crop: bool | None, do_pad: bool | None) -> None:
    """Raise ValueError for a setting of transformers that aligned crops must not have."""
    for name, value in (("do_center_crop", do_center_crop), ("do_pad", do_pad)):
        if value:
            raise ValueError(
                f"{name} must be False: it would move the eyes of an aligned crop, which is only "
                f"resized; got {value!r}"
            )


class MMAMRNNetVideoProcessorKwargs(VideosKwargs, total=False):
    """Settings of a processor or of one call: transformers' and ours."""

    length_policy: str | None


class MMAMRNNetVideoProcessor(WithCard, BaseVideoProcessor):
    """Turn clips of aligned face crops into padded, masked batches.

    A crop becomes (x - 127.5) / 127.5, after a bilinear resize to `size` if needed. Clips
    are padded with zeros at the end to `num_frames`; longer ones are shortened by
    `length_policy` (see `kept_indices`), with a warning. `pad` does the same to affect.

    A clip is an array of crops at the model's rate, or the path or URL of a video *of
    crops*, sampled at `fps` per second. No face is detected: for whole videos use
    `predict_video` or the pipeline `facial-expression-intensity`.

    Raises:
        ValueError: an unknown `length_policy`, an unreasonable size, or an `image_std` of 0.
    """

    valid_kwargs = MMAMRNNetVideoProcessorKwargs  # type: ignore[assignment]  # the base is for images too

    resample = PILImageResampling.BILINEAR
    size = {"height": MMAConfig.image_size, "width": MMAConfig.image_size}
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_center_crop = False
    do_pad = False
    do_sample_frames = False
    num_frames = MMAMRNNetConfig.num_frames
    fps = MMAMRNNetConfig.sampling_fps
    length_policy = "thin"
    model_input_names = ["pixel_values", "frame_mask"]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        kept_indices(0, self.num_frames, self.length_policy)  # refuses an unknown policy
        _refuse_cropping(self.do_center_crop, self.do_pad)
        size = SizeDict(**dict(self.size))
        for name, value, most in (
            ("size", size.height, MOST_IMAGE_SIZE),
            ("size", size.width, MOST_IMAGE_SIZE),
            ("num_frames", self.num_frames, MOST_FRAMES),
        ):
            if not (isinstance(value, int) and 1 <= value <= most):
                raise ValueError(f"{name} of the processor must be 1 to {most}; got {value!r:.80}")
        if self.do_normalize and not all(0 < abs(each) < math.inf for each in self.image_std):
            raise ValueError(f"image_std must be finite and not 0; got {self.image_std!r:.80}")

    def fetch_videos(
        self, video_url_or_urls: Any, sample_indices_fn: Callable[..., np.ndarray] | None = None
    ) -> tuple[Any, Any]:
        """Read videos of crops with the package's own reader (transformers' hook).

        Returns frames (T, S, S, 3) uint8, upright, and metadata of a video; a tuple of each
        for a list. Frames are chosen by time stamps, at the `fps` in `sample_indices_fn`.

        Raises:
            ValueError: the package is not installed, the video cannot be read, or its
                frames are not square and so are not aligned crops.
        """
        if isinstance(video_url_or_urls, list):
            videos = [self.fetch_videos(video, sample_indices_fn) for video in video_url_or_urls]
            frames, metadata = zip(*videos, strict=True)
            return frames, metadata
        fps = getattr(sample_indices_fn, "keywords", {}).get("fps") or self.fps
        return self._read_crops(video_url_or_urls, fps)

    def _read_crops(self, video: Any, fps: float) -> tuple[np.ndarray, VideoMetadata]:
        try:
            # Imported by name: an exported copy of this file works without the package.
            sources = importlib.import_module("mma_mrnnet.video.sources")
        except ImportError as error:
            raise ValueError(
                f"{video}: only the package mma-mrnnet reads video files (turned "
                "pictures, variable "
                f"rates), and it is not installed here: give the crops as an array (T, S, S, 3) "
                f"uint8, {fps:g} frames a second"
            ) from error
        crops, indices = [], []
        with sources.open_video(video) as opened:
            reader = opened.read(fps)
            for frame in reader:
                height, width = frame.image.shape[:2]
                if height != width:
                    raise ValueError(
                        f"{video}: its frames are {width} x {height}, but aligned face crops are "
                        "square, and no face is looked for here: whole videos are for "
                        "predict_video or the pipeline facial-expression-intensity"
                    )
                crops.append(frame.image)
                indices.append(frame.index)
        metadata = VideoMetadata(
            total_num_frames=len(crops),
            fps=fps,
            duration=reader.duration_s,
            video_backend="pyav",
            frames_indices=indices,
        )
        return np.stack(crops), metadata

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Choose the frames of a video (transformers' hook).

        Returns (L,) int64 indices: the first frame at or after each k / `fps` (None: the
        processor's own rate); all frames of an array, which has no rate. `num_frames` is
        ignored, since `pad` sets the length.

        Raises:
            ValueError: the video header lacks the number of frames or the rate.
        """
        total, rate = metadata.total_num_frames, metadata.fps
        if rate is None:
            return np.arange(total)
        if not (total and rate > 0):
            raise ValueError(
                "this video's header does not say how many frames it has at which rate (common in "
                ".webm and .mkv): convert it to .mp4, or give its frames as an array"
            )
        fps = self.fps if fps is None else fps
        # Take a frame if a tick lies after the previous frame; containers
        # round times to 1 ms.
        times_s = np.arange(total) / rate + 0.001
        ticks = np.floor(times_s * fps).astype(np.int64)  # ticks passed by each frame
        return np.flatnonzero(np.diff(ticks, prepend=-1) > 0)

    def pad(  # type: ignore[override]  # the base pads images; its code never calls this
        self,
        sequences: Sequence[Tensor | np.ndarray],
        num_frames: int | None = None,
        length_policy: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pad per-frame values of B clips (crops or affect) to one length.

        Args:
            sequences: B arrays (L_b, ...) of real frames in time order, L_b >= 0.
            num_frames: T; None means the processor's own.
            length_policy: one of `LENGTH_POLICIES`; None means the processor's own.

        Returns:
            values: (B, T, ...) in the arrays' dtype, zeros after each clip's last frame.
            frame_mask: (B, T) bool, True for real frames.

        Raises:
            ValueError: no clip, frames of different shapes, or an unknown policy.
        """
        most = self.num_frames if num_frames is None else num_frames
        policy = self.length_policy if length_policy is None else length_policy
        kept_indices(0, most, policy)  # refuses an unknown policy
        if len(sequences) == 0:
            raise ValueError("at least one clip is needed; got an empty list")
        tensors = [_as_tensor(sequence) for sequence in sequences]
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
        if len(shapes) != 1:
            raise ValueError(f"all clips' frames must have one shape; got {sorted(shapes)}")
        longest = max(len(tensor) for tensor in tensors)
        if longest > most:
            logger.warning(
                "a clip of %d frames is %s %d", longest, self.shortened(length_policy), most
            )
        values = tensors[0].new_zeros(len(tensors), most, *shapes.pop())
        frame_mask = values.new_zeros(len(tensors), most, dtype=torch.bool)
        for row, tensor in enumerate(tensors):
            stays = len(tensor) <= most and policy != "resample"
            kept = tensor if stays else tensor[kept_indices(len(tensor), most, policy)]
            values[row, : len(kept)] = kept
            frame_mask[row, : len(kept)] = True
        return values, frame_mask

    def image_processor(self) -> ViTImageProcessor:
        """Return transformers' own image processor with the same scaling.

        Saved with a stage-1 model, it makes `AutoImageProcessor` work without our code.
        """
        return ViTImageProcessor(
            size=dict(self.size),
            resample=self.resample,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )

    def shortened(self, length_policy: str | None = None) -> str:
        """Return the words for what `pad` does to a clip of more than T frames."""
        return describe_shortening(length_policy or self.length_policy)

    def scale(self, crops: Tensor | np.ndarray) -> Tensor:
        """Convert N crops to pixel values (N, 3, S, S) float32 in [-1, 1].

        `crops` is (N, H, W, 3) or (N, 3, H, W) uint8 RGB; others raise ValueError.
        """
        frames = _as_tensor(crops)
        if frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[-1]):
            raise ValueError(
                f"crops must be (N, H, W, 3) or (N, 3, H, W) RGB; got {tuple(frames.shape)}"
            )
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

    def _prepare_input_videos(  # type: ignore[override]  # named as in the base
        self,
        videos: Sequence[Any],
        do_convert_rgb: bool | None = None,
        input_data_format: Any = None,
        device: str | None = None,
    ) -> list[Tensor]:
        """Turn clips into tensors (T, 3, H, W) (transformers' hook); RGBA is taken too."""
        prepare = super()._prepare_input_videos
        formats = [
            input_data_format or infer_channel_dimension_format(video, (1, 3, 4))
            for video in videos
        ]
        return [
            prepare([video], do_convert_rgb, layout, device)[0]
            for video, layout in zip(videos, formats, strict=True)
        ]

    def convert_to_rgb(self, video: Tensor) -> Tensor:  # type: ignore[override]
        """Convert (T, C, H, W) grey, RGB or RGBA to RGB; transparency shows white below it."""
        if video.shape[-3] != 4:
            return cast("Tensor", super().convert_to_rgb(video))
        white = 255 if video.dtype == torch.uint8 else 1
        opacity = video[:, 3:] / white
        blended = video[:, :3] * opacity + white * (1 - opacity)
        return (blended.round() if white == 255 else blended).to(video.dtype)

    def _pixel_values(
        self, frames: Tensor, *, size: SizeDict, do_resize: bool, resample: Any, **scaling: Any
    ) -> Tensor:
        """Convert (N, 3, H, W) to (N, 3, S, S): resize if needed, rescale, normalise."""
        wanted = cast("tuple[int, int]", (size.height, size.width))
        if do_resize and None in wanted:
            raise ValueError(f"size of the processor must be a height and a width; got {size}")
        if do_resize and tuple(frames.shape[-2:]) != wanted:
            if len(frames) == 0:
                return torch.zeros((0, 3, *wanted), dtype=torch.float32, device=frames.device)
            frames = self.resize(frames, size=size, resample=resample)
        return self.rescale_and_normalize(frames.contiguous(), **scaling)

    def _preprocess(  # type: ignore[override]  # takes the base's keywords in `kwargs`
        self,
        videos: list[Tensor],
        num_frames: int | None = None,
        length_policy: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn clips (T, 3, H, W) into a padded batch (transformers' hook)."""
        _refuse_cropping(kwargs["do_center_crop"], kwargs["do_pad"])
        settings = {name: kwargs[name] for name in SCALING}
        if settings["do_rescale"] and any(video.dtype != torch.uint8 for video in videos):
            raise ValueError(
                "clips must be uint8 in 0..255; give floats in 0..1 with do_rescale=False"
            )
        scaled = [self._pixel_values(video, **settings) for video in videos]
        pixel_values, frame_mask = self.pad(scaled, num_frames, length_policy)
        return BatchFeature(
            data={"pixel_values": pixel_values, "frame_mask": frame_mask},
            tensor_type=return_tensors,
        )


MMAMRNNetVideoProcessor.register_for_auto_class()
