"""Which model and processor a prediction is made with."""

from functools import cache

from mma_mrnnet.hub.checkpoints import load_pretrained
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


@cache
def default_checkpoint() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Return the bundled checkpoint, loaded once a process.

    For internal use: `load_pretrained` gives callers a copy that they may change.
    """
    return load_pretrained()


def resolve_checkpoint(
    model: MMAModel | MMAMRNNetForIntensity | None, processor: MMAMRNNetVideoProcessor | None
) -> tuple[MMAModel | MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Return the given pair (model in eval mode), or the bundled checkpoint if both are None.

    Raises:
        ValueError: one of the two is missing.
    """
    if model is None and processor is None:
        return default_checkpoint()
    if model is None or processor is None:
        raise ValueError(
            "give model and processor together, or neither for the checkpoint that ships"
        )
    return model.eval(), processor


def resolve_stage_2(
    model: MMAMRNNetForIntensity | None, processor: MMAMRNNetVideoProcessor | None
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """As `resolve_checkpoint`, but a stage-1 model is refused.

    Raises:
        ValueError: one of the two is missing, or the model is of stage 1.
    """
    found, processor = resolve_checkpoint(model, processor)
    # Not by class: a model that was loaded with the Hub's own code has another one.
    if found.config.model_type != "mma_mrnnet":
        raise ValueError(
            f"a stage-1 model ({found.config.model_type}) gives no intensities; "
            "a stage-2 one is needed"
        )
    return found, processor  # type: ignore[return-value]  # the model type was just checked


def get_extractor(model: MMAModel | MMAMRNNetForIntensity) -> MMAModel:
    """Return the stage-1 model, which may be the model itself.

    Raises:
        ValueError: the model reads feature tables and has none.
    """
    extractor = getattr(model, "mma", model)
    if extractor is None:
        raise ValueError("this model reads tables of features and has no extractor for images")
    return extractor  # type: ignore[return-value]  # known by its attribute, not by its class
