"""Clips of face crops -> `pixel_values` and `frame_mask`. The only place that scales and pads."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, ViTImageProcessor
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, load_video

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

LENGTH_POLICIES = ("thin", "truncate", "resample")
"""Ways of bringing a clip to at most T frames; see `kept_indices`."""


def thinned_indices(length: int, most: int) -> Tensor:
    """Which of `length` frames stay where at most `most` may: evenly spread, both ends kept; (min(l, m),) int64."""
    return torch.arange(length) if length <= most else _evenly_spread(length, most)


def _evenly_spread(length: int, count: int) -> Tensor:
    """(count,) int64 numbers of `length` frames, at least one, both ends among them; each the nearest to its place."""
    return torch.linspace(0, length - 1, count, dtype=torch.float64).round().long()


def kept_indices(length: int, most: int, policy: str = "thin") -> Tensor:
    """Which of a clip's frames stay where at most `most` may.

    Args:
        length: frames of the clip.
        most: T.
        policy: `thin` (of too many frames T, evenly spread, both ends kept), `truncate` (the first T) or `resample`
            (always T, evenly spread, both ends kept, each the nearest frame: those of a short clip several times).

    Returns:
        (min(length, T),) int64 in time order; for `resample` (T,), but (0,) for a clip without frames.

    Raises:
        ValueError: another policy.
    """
    if policy not in LENGTH_POLICIES:
        raise ValueError(
            f"length_policy must be one of {', '.join(LENGTH_POLICIES)}; got {policy!r}"
        )
    if policy == "truncate":
        return torch.arange(min(length, most))
    if policy == "resample" and length > 0:
        return _evenly_spread(length, most)
    return thinned_indices(length, most)


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor of the values; read-only arrays, as pandas gives them, are copied (torch cannot share those)."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


class ClipsKwargs(VideosKwargs, total=False):
    """Settings that a processor, or one call of it, can be given: transformers' own and ours."""

    length_policy: str | None


class MMAMRNNetVideoProcessor(BaseVideoProcessor):
    """Turns clips of aligned face crops into padded, masked batches; pads affect by the same function.

    A crop becomes (x - 127.5) / 127.5, bilinearly resized to `size` where it has another one. Clips are padded at the
    end, with zeros, to `num_frames`; longer ones are thinned evenly, with a warning (our choice), or what else
    `length_policy` says (see `kept_indices`): the first frames are kept, or every clip gets a fixed length.

    A clip is an array of crops at the model's own rate, or the path or URL of a video *of crops*, sampled here at `fps`
    a second. No face is looked for: whole frames are for the pipeline `facial-expression-intensity`.

    Raises:
        ValueError: a `length_policy` that there is not.
    """

    valid_kwargs = ClipsKwargs

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
    fps = 2.0
    length_policy = "thin"
    model_input_names = ["pixel_values", "frame_mask"]  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        kept_indices(0, self.num_frames, self.length_policy)  # refuses an unknown policy

    def fetch_videos(
        self, video_url_or_urls: Any, sample_indices_fn: Callable[..., np.ndarray] | None = None
    ) -> tuple[Any, Any]:
        """Transformers' hook for paths and URLs: frames and metadata, decoded by PyAV.

        Transformers' own takes torchcodec, which the package does not need. Frames are always sampled at the model's
        rate: the recurrent part was trained at no other.

        Raises:
            ValueError: frames that are not square, so no aligned crops.
        """
        if isinstance(video_url_or_urls, list):
            videos = [self.fetch_videos(video, sample_indices_fn) for video in video_url_or_urls]
            return tuple(zip(*videos, strict=True))
        video = str(video_url_or_urls)

        def sample(metadata: VideoMetadata, **kwargs: Any) -> np.ndarray:
            if metadata.width != metadata.height:
                raise ValueError(
                    f"{video}: its frames are {metadata.width} x {metadata.height}, but aligned face crops are square, "
                    "and no face is looked for here: whole videos are for predict_video or the pipeline "
                    "facial-expression-intensity"
                )
            return (sample_indices_fn or self.sample_frames)(metadata=metadata, **kwargs)

        return load_video(video, backend="pyav", sample_indices_fn=sample)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Transformers' hook: numbers of the frames that are looked at.

        Args:
            metadata: of an array, which names no rate and is taken to have the model's, or of a video.
            num_frames: not read: `pad` makes a clip fit.
            fps: frames a second; None takes the processor's own.
            kwargs: transformers' hooks.

        Returns:
            (L,) int64: of a video the first frame at or after each k / fps, of an array every frame.

        Raises:
            ValueError: a video whose header does not tell how many frames it has, or at which rate.
        """
        total, rate = metadata.total_num_frames, metadata.fps
        if rate is None:
            return np.arange(total)
        if not (total and rate > 0):
            raise ValueError(
                "this video's header does not say how many frames it has at which rate (common in .webm and .mkv): "
                "convert it to .mp4, or give its frames as an array"
            )
        fps = self.fps if fps is None else fps
        # A frame is due where a tick lies after the frame before; 1 ms is what containers round away.
        ticks = np.floor((np.arange(total) / rate + 0.001) * fps).astype(
            np.int64
        )  # ticks passed by each frame
        return np.flatnonzero(np.diff(ticks, prepend=-1) > 0)

    def pad(
        self,
        sequences: Sequence[Tensor | np.ndarray],
        num_frames: int | None = None,
        length_policy: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pads per-frame values of B clips to one length; used for crops and for affect alike.

        Args:
            sequences: B arrays (L_b, ...) of real frames in time order, all alike behind the first axis; L_b may be 0.
            num_frames: T; None takes the processor's own.
            length_policy: one of `LENGTH_POLICIES`; None takes the processor's own.

        Returns:
            values: (B, T, ...) in the arrays' own dtype, zeros behind each clip's last frame.
            frame_mask: (B, T) bool, True for real frames.

        Raises:
            ValueError: no clip at all, clips whose frames differ in shape, or a policy that there is not.
        """
        most = self.num_frames if num_frames is None else num_frames
        policy = self.length_policy if length_policy is None else length_policy
        kept_indices(0, most, policy)  # refuses an unknown policy
        if len(sequences) == 0:
            raise ValueError("at least one clip is needed; got an empty list")
        tensors = [_tensor(sequence) for sequence in sequences]
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
        """The image processor of stage 1 alone: transformers' own, which scales as this one does.

        Saved beside a stage-1 model it makes `AutoImageProcessor` work, and without any code of ours.
        """
        return ViTImageProcessor(
            size=dict(self.size),
            resample=self.resample,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )

    def shortened(self, length_policy: str | None = None) -> str:
        """What `pad` does to a clip with more than T frames, in words that a number follows."""
        return (
            "cut to the first"
            if (length_policy or self.length_policy) == "truncate"
            else "thinned evenly to"
        )

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
        self,
        videos: list[Tensor],
        num_frames: int | None = None,
        length_policy: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Transformers' hook behind `__call__`: (T, 3, H, W) clips to a padded batch, by the call's own settings."""
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
