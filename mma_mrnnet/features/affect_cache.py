"""Affect of a corpus's clips by one extractor, as `clip_cache.py` keeps it."""

import hashlib
import json
import os

import torch

from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.features.face_cache import FaceCache
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import SCALING, MMAMRNNetVideoProcessor


class AffectCache(FaceCache):
    """Affect of clips at one frame rate; the extractor's weights and form and the processor's scaling decide on it too.

    Args:
        folder: made where it is missing.
        extractor: a stage-1 model in eval mode.
        processor: the model's processor.
        fps: frames a second taken from videos; crops without an index are taken as they come.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        extractor: MMAModel,
        processor: MMAMRNNetVideoProcessor,
        fps: float,
    ) -> None:
        self.extractor = extractor
        self.processor = processor
        super().__init__(
            folder,
            {"extractor": digest_of_model(extractor), "scaling": scaling_of(processor)},
            extractor.config.affect_size,
            size=extractor.config.image_size,
            fps=fps,
            rows_of=lambda crops: extract_affect(crops, extractor, processor),
        )


def digest_of_model(extractor: MMAModel) -> str:
    """A digest of the weights, to the bit, and of the settings that they do not show."""
    config = extractor.config
    backbone = {
        name: value for name, value in config.backbone_config.to_dict().items() if name[0] != "_"
    }
    backbone.pop("transformers_version", None)
    settings = {
        "image_size": config.image_size,
        "action_units": list(config.action_units),
        "backbone": backbone,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(extractor.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def scaling_of(processor: MMAMRNNetVideoProcessor) -> dict[str, object]:
    """The settings that change pixel values, as JSON can hold them."""
    settings = {name: getattr(processor, name) for name in SCALING}
    settings["size"] = {
        side: length for side, length in dict(processor.size).items() if length is not None
    }
    return settings
