"""Run a checkpoint with PyTorch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.hub.checkpoints import load_either, load_pretrained
from mma_mrnnet.hub.facts import CheckpointFacts, has_contributions
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


@cache
def default_checkpoint() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Return the bundled checkpoint, loaded once per process.

    For internal use; `load_pretrained` returns a copy that callers may change.
    """
    return load_pretrained()


class TorchEngine:
    """The `Engine` of a model object; runs in eval mode, on the model's device.

    Attributes:
        model: a model of either stage.
        processor: its processor.
    """

    name = "torch"

    def __init__(self, model: Any, processor: MMAMRNNetVideoProcessor) -> None:
        self.model, self.processor = model, processor

    @property
    def facts(self) -> CheckpointFacts:
        """Names, sizes and rates, of the config as it is now."""
        return CheckpointFacts.of(self.model, self.processor)

    def extract_affect(self, crops: list[np.ndarray]) -> np.ndarray:
        """Return (N, A) float32; see `Engine`."""
        extractor = getattr(self.model, "mma", self.model)
        if extractor is None:
            raise ValueError("this model reads tables of features and has no extractor for images")
        with evaluating(self.model):
            return extract_affect(crops, extractor, self.processor)

    def predict_intensities(self, affect: np.ndarray, frame_mask: np.ndarray) -> np.ndarray:
        """Return (B, K) float32; see `Engine`."""
        with evaluating(self.model), torch.inference_mode():
            output = self.model(**self._inputs(affect, frame_mask))
        return output.intensities.float().cpu().numpy()

    def split_by_frame(
        self, affect: np.ndarray, frame_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return contributions and constants; see `Engine`."""
        if not has_contributions(self.model):
            return None
        with evaluating(self.model), torch.inference_mode():
            found = self.model.frame_contributions(**self._inputs(affect, frame_mask))
        return found.contributions.float().cpu().numpy(), found.constant.float().cpu().numpy()

    def _inputs(self, affect: np.ndarray, frame_mask: np.ndarray) -> dict[str, torch.Tensor]:
        arrays = {"affect": affect, "frame_mask": frame_mask}
        return {name: torch.from_numpy(each).to(self.model.device) for name, each in arrays.items()}


def open_torch(
    model: PreTrainedModel | str | os.PathLike[str] | None,
    processor: MMAMRNNetVideoProcessor | None,
    revision: str,
    device: str | None,
) -> TorchEngine:
    """Return the engine of a given pair, or of a checkpoint; arguments as in `open_engine`."""
    if isinstance(model, str | os.PathLike):
        loaded, own_processor = load_either(model, revision)
        opened = TorchEngine(loaded, processor or own_processor)
    elif model is None and processor is None:
        opened = TorchEngine(*default_checkpoint())
    elif model is None or processor is None:
        raise ValueError(
            "give model and processor together, or neither for the checkpoint that ships"
        )
    elif not hasattr(model, "config"):
        raise ValueError(
            "model must be a stage-2 model, a folder or the name of a repository; "
            f"got {type(model).__name__}"
        )
    else:
        opened = TorchEngine(model, processor)
    if device is not None:
        _move_to(opened.model, device)
    return opened


def _move_to(model: torch.nn.Module, name: str) -> None:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: not available here ({reason})") from error
    model.to(device)


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
