"""Choose the model and processor of a prediction, and set eval mode."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from transformers import PreTrainedModel

from mma_mrnnet.hub.checkpoints import load_either, load_pretrained
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

ModelOrName = PreTrainedModel | str | os.PathLike[str] | None
"""A model, the folder or Hub repository of one, or None for the bundled checkpoint."""


@cache
def default_checkpoint() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Return the bundled checkpoint, loaded once per process.

    For internal use; `load_pretrained` returns a copy that callers may change.
    """
    return load_pretrained()


def resolve_checkpoint(
    model: ModelOrName, processor: MMAMRNNetVideoProcessor | None, revision: str = "main"
) -> tuple[MMAModel | MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Return the given pair, the named checkpoint, or the bundled one if both are None.

    Raises:
        ValueError: a model without its processor, or a processor without a model.
        CheckpointError: the checkpoint is missing, damaged, or of another kind.
    """
    if isinstance(model, str | os.PathLike):
        loaded, own_processor = load_either(model, revision)
        return loaded, processor or own_processor
    if model is None and processor is None:
        return default_checkpoint()
    if model is None or processor is None:
        raise ValueError(
            "give model and processor together, or neither for the checkpoint that ships"
        )
    if not hasattr(model, "config"):
        raise ValueError(
            "model must be a stage-2 model, a folder or the name of a repository; "
            f"got {type(model).__name__}"
        )
    return model, processor  # type: ignore[return-value]  # classes of the Hub's copy differ


def resolve_stage_2(
    model: ModelOrName, processor: MMAMRNNetVideoProcessor | None, revision: str = "main"
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """As `resolve_checkpoint`, but raise ValueError for a stage-1 model."""
    found, processor = resolve_checkpoint(model, processor, revision)
    # Not by class: a model loaded with the Hub's copy of the code has another one.
    if found.config.model_type != "mma_mrnnet":
        raise ValueError(
            f"a stage-1 model ({found.config.model_type}) gives no intensities; "
            "a stage-2 one is needed"
        )
    return found, processor  # type: ignore[return-value]  # the model type was just checked


def get_extractor(model: MMAModel | MMAMRNNetForIntensity) -> MMAModel:
    """Return the stage-1 model; raises ValueError for a model that reads feature tables."""
    extractor = getattr(model, "mma", model)
    if extractor is None:
        raise ValueError("this model reads tables of features and has no extractor for images")
    return extractor  # type: ignore[return-value]  # known by its attribute, not by its class


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Open a context with the model in eval mode; on exit each module's mode is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
