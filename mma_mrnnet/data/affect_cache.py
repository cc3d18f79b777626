"""Affect of a corpus's clips by one extractor, as `clip_cache.py` keeps it."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mma_mrnnet.data.affect import CHUNK, affect_of, frames_with_affect
from mma_mrnnet.data.clip_cache import ClipCache
from mma_mrnnet.data.crop_store import CropError, read_index
from mma_mrnnet.data.faces import FaceDetector, crop_faces
from mma_mrnnet.data.records import ClipFile
from mma_mrnnet.data.video import read_frames
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import SCALING, MMAMRNNetVideoProcessor

CACHE_FORMAT = 1  # raise it when decoding, detection or alignment change what a clip's affect is


class AffectCache(ClipCache):
    """Affect of clips at one frame rate; the extractor's weights and form and the processor's scaling decide on it too.

    Args:
        folder: made where it is missing.
        extractor: a stage-1 model in eval mode.
        processor: the model's processor.
        fps: frames a second taken from videos; crops without an index are taken as they come.
    """

    def __init__(
        self, folder: str | os.PathLike[str], extractor: MMAModel, processor: MMAMRNNetVideoProcessor, fps: float
    ) -> None:
        self.extractor = extractor
        self.processor = processor
        self.fps = float(fps)
        self._detector: FaceDetector | None = None
        settings = {
            "format": CACHE_FORMAT,
            "extractor": digest_of_model(extractor),
            "scaling": _scaling_of(processor),
            "fps": self.fps,
        }
        super().__init__(folder, settings, extractor.config.affect_size, self._affect_of, self._files_of)

    def _files_of(self, clip: ClipFile) -> list[Path]:
        """The clip's files at this cache's rate, which only crops with an index can be thinned to."""
        index = read_index(clip.path) if clip.path.is_dir() else None
        return clip.files if index is None else index.files_at(clip.path, self.fps)

    def _affect_of(self, clip: ClipFile) -> np.ndarray:
        return self._affect_of_crops(self._files_of(clip)) if clip.path.is_dir() else self._affect_of_video(clip.path)

    def _affect_of_video(self, path: Path) -> np.ndarray:
        self._detector = self._detector or FaceDetector()
        frames = crop_faces(read_frames(path, self.fps), self.extractor.config.image_size, self._detector)
        rows = [row for _, row in frames_with_affect(frames, self.extractor, self.processor) if row is not None]
        return np.stack(rows) if rows else affect_of([], self.extractor, self.processor)

    def _affect_of_crops(self, files: list[Path]) -> np.ndarray:
        chunks = []
        for first in range(0, len(files), CHUNK):
            crops = [_read_crop(path) for path in files[first : first + CHUNK]]
            chunks.append(affect_of(crops, self.extractor, self.processor))
        return np.concatenate(chunks) if chunks else affect_of([], self.extractor, self.processor)


def _read_crop(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    # What Pillow raises on a damaged file depends on the format; a huge one is refused by its own rule.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CropError(f"{path}: not an image that can be read ({type(error).__name__})") from error


def digest_of_model(extractor: MMAModel) -> str:
    """A digest of the weights, to the bit, and of the settings that they do not show."""
    config = extractor.config
    backbone = {name: value for name, value in config.backbone_config.to_dict().items() if name[0] != "_"}
    backbone.pop("transformers_version", None)
    settings = {"image_size": config.image_size, "action_units": list(config.action_units), "backbone": backbone}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(extractor.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _scaling_of(processor: MMAMRNNetVideoProcessor) -> dict[str, object]:
    """The settings that change pixel values, as JSON can hold them."""
    settings = {name: getattr(processor, name) for name in SCALING}
    settings["size"] = {side: length for side, length in dict(processor.size).items() if length is not None}
    return settings
