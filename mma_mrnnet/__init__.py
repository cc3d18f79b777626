"""MMA-MRNNet: a video of a face in, the intensities of seven emotional reactions out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mma_mrnnet.registration import register_when_imported

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` looks these up
    from mma_mrnnet.hub.checkpoints import load_checkpoint, load_pretrained
    from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig, MMAMRNNetConfig
    from mma_mrnnet.model.modeling_mma import MMAForImageClassification, MMAModel, MMAOutput
    from mma_mrnnet.model.modeling_mma_mrnnet import (
        IntensityOutput,
        MMAMRNNetForIntensity,
        MMAMRNNetForVideoClassification,
    )
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
    from mma_mrnnet.prediction import (
        VideoPrediction,
        predict_people,
        predict_table,
        predict_video,
    )
    from mma_mrnnet.prediction.photos import predict_image, predict_images
    from mma_mrnnet.prediction.streaming import (
        LiveEstimate,
        LiveReader,
        running_intensities,
        sliding_windows,
    )

__version__ = "0.1.0"

# Imported on first use: PyTorch and transformers take seconds.
_HOMES = {
    "IntensityOutput": "model.modeling_mma_mrnnet",
    "LiveEstimate": "prediction.streaming",
    "LiveReader": "prediction.streaming",
    "MMAConfig": "model.configuration_mma_mrnnet",
    "MMAForImageClassification": "model.modeling_mma",
    "MMAMRNNetConfig": "model.configuration_mma_mrnnet",
    "MMAMRNNetForIntensity": "model.modeling_mma_mrnnet",
    "MMAMRNNetForVideoClassification": "model.modeling_mma_mrnnet",
    "MMAMRNNetVideoProcessor": "model.video_processing_mma_mrnnet",
    "MMAModel": "model.modeling_mma",
    "MMAOutput": "model.modeling_mma",
    "VideoPrediction": "prediction",
    "load_checkpoint": "hub.checkpoints",
    "load_pretrained": "hub.checkpoints",
    "predict_image": "prediction.photos",
    "predict_images": "prediction.photos",
    "predict_people": "prediction",
    "predict_table": "prediction",
    "predict_video": "prediction",
    "running_intensities": "prediction.streaming",
    "sliding_windows": "prediction.streaming",
}

__all__ = [
    "IntensityOutput",
    "LiveEstimate",
    "LiveReader",
    "MMAConfig",
    "MMAForImageClassification",
    "MMAMRNNetConfig",
    "MMAMRNNetForIntensity",
    "MMAMRNNetForVideoClassification",
    "MMAMRNNetVideoProcessor",
    "MMAModel",
    "MMAOutput",
    "VideoPrediction",
    "load_checkpoint",
    "load_pretrained",
    "predict_image",
    "predict_images",
    "predict_people",
    "predict_table",
    "predict_video",
    "running_intensities",
    "sliding_windows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
