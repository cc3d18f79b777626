"""MMA-MRNNet: a video of a face in, the intensities of seven emotional reactions out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from mma_mrnnet.hub.export import use_card_in_trainer
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig, MMAMRNNetConfig
from mma_mrnnet.model.modeling_mma import MMAForImageClassification, MMAModel, MMAOutput
from mma_mrnnet.model.modeling_mma_mrnnet import (
    IntensityOutput,
    MMAMRNNetForIntensity,
    MMAMRNNetForVideoClassification,
)
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.prediction.pipeline import register_pipeline

__version__ = "0.1.0"

AutoConfig.register("mma", MMAConfig, exist_ok=True)
AutoConfig.register("mma_mrnnet", MMAMRNNetConfig, exist_ok=True)
AutoModel.register(MMAConfig, MMAModel, exist_ok=True)
AutoModel.register(MMAMRNNetConfig, MMAMRNNetForIntensity, exist_ok=True)
AutoModelForImageClassification.register(MMAConfig, MMAForImageClassification, exist_ok=True)
AutoModelForVideoClassification.register(
    MMAMRNNetConfig, MMAMRNNetForVideoClassification, exist_ok=True
)
AutoVideoProcessor.register(MMAMRNNetConfig, MMAMRNNetVideoProcessor, exist_ok=True)
register_pipeline()
use_card_in_trainer()

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` looks these up
    from mma_mrnnet.hub.checkpoints import load_checkpoint, load_pretrained
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

# Imported on first use: predicting needs the decoder, OpenCV and pandas, which models alone do not.
_ON_FIRST_USE = {
    "predict_video": "mma_mrnnet.prediction",
    "predict_image": "mma_mrnnet.prediction.photos",
    "predict_images": "mma_mrnnet.prediction.photos",
    "predict_people": "mma_mrnnet.prediction",
    "predict_table": "mma_mrnnet.prediction",
    "VideoPrediction": "mma_mrnnet.prediction",
    "load_checkpoint": "mma_mrnnet.hub.checkpoints",
    "load_pretrained": "mma_mrnnet.hub.checkpoints",
    "LiveEstimate": "mma_mrnnet.prediction.streaming",
    "LiveReader": "mma_mrnnet.prediction.streaming",
    "running_intensities": "mma_mrnnet.prediction.streaming",
    "sliding_windows": "mma_mrnnet.prediction.streaming",
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
    if name in _ON_FIRST_USE:
        return getattr(import_module(_ON_FIRST_USE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})
