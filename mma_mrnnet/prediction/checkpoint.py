"""Which model and processor a prediction is made with."""

from functools import cache

from mma_mrnnet.hub.checkpoints import load_pretrained
from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


@cache
def default_checkpoint() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """The shipped checkpoint, loaded once a process; for our own use, so that a caller's changes do not reach it."""
    return load_pretrained()


def checked_pair(
    model: MMAModel | MMAMRNNetForIntensity | None, processor: MMAMRNNetVideoProcessor | None
) -> tuple[MMAModel | MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Both as given, the model in eval mode, or the shipped ones for None and None; ValueError for one alone."""
    if (model is None) != (processor is None):
        raise ValueError(
            "give model and processor together, or neither for the checkpoint that ships"
        )
    if model is None:
        return default_checkpoint()
    return model.eval(), processor


def stage_2_config(model: MMAModel | MMAMRNNetForIntensity) -> MMAMRNNetConfig:
    """The model's config; ValueError for a stage-1 model."""
    if model.config.model_type != "mma_mrnnet":
        raise ValueError(
            f"a stage-1 model ({model.config.model_type}) gives no intensities; a stage-2 one is needed"
        )
    return model.config
