"""Open the checkpoint of a prediction with one of two engines, onnxruntime or PyTorch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from mma_mrnnet.hub.facts import CheckpointFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

ENGINES = ("onnx", "torch")


class Engine(Protocol):
    """Runs a checkpoint; numpy arrays in and out. Instances may be shared between threads.

    `name` is one of `ENGINES`. Scaling of crops, calibration and masking are the engine's.
    """

    name: str

    @property
    def facts(self) -> CheckpointFacts:
        """Names, sizes and rates of the checkpoint."""
        ...

    def extract_affect(self, crops: list[np.ndarray]) -> np.ndarray:
        """Return (N, A) float32 affect of N >= 0 crops, (H, W, 3) uint8 RGB of any size.

        Raises ValueError for a model that reads feature tables.
        """
        ...

    def predict_intensities(self, affect: np.ndarray, frame_mask: np.ndarray) -> np.ndarray:
        """Return (B, K) float32 intensities.

        `affect` is (B, T, A) float32, `frame_mask` (B, T) bool, real frames first, T the model's.
        """
        ...

    def split_by_frame(
        self, affect: np.ndarray, frame_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the contributions (B, T, K) and the constant (B, K) of `frame_contributions`.

        None if the model has none.
        """
        ...


class MirroredEngine:
    """An engine that averages each crop's affect with that of its mirrored copy.

    Steadier, at the cost of a second pass through the extractor. Labels are means of both sides of
    the face, so mirroring keeps them true.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name = engine, engine.name

    def __getattr__(self, name: str) -> Any:
        """Return everything but `extract_affect` from the engine."""
        if name == "engine":  # not set yet, while it is unpickled
            raise AttributeError(name)
        return getattr(self.engine, name)

    def extract_affect(self, crops: list[np.ndarray]) -> np.ndarray:
        """Return (N, A) float32; see `Engine`."""
        mirrored = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
        return (self.engine.extract_affect(crops) + self.engine.extract_affect(mirrored)) / 2


ModelOrName: TypeAlias = "PreTrainedModel | Engine | str | os.PathLike[str] | None"
"""A model, an engine, the folder or Hub repository of one, or None for the bundled checkpoint."""


def open_engine(
    model: Any = None,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    *,
    engine: str | None = None,
    revision: str = "main",
    device: str | None = None,
    threads: int = 1,
) -> Engine:
    """Open a checkpoint for predictions.

    The result can be given as `model` to every function that predicts, which saves loading it
    anew. By default onnxruntime runs a checkpoint that carries ONNX files, as the bundled one
    does, and PyTorch every other one, a model that is given as an object, and every device.

    Args:
        model: a model of either stage, or its folder or Hub repository; None: the bundled one,
            opened once per process. An engine is returned as it is.
        processor: required if `model` is an object; with a name it replaces the checkpoint's.
        engine: `onnx` or `torch`; None: the default.
        revision: branch, tag or commit of a Hub repository.
        device: a torch device; needs PyTorch.
        threads: compute threads of onnxruntime. Those of PyTorch are `torch.set_num_threads`'.

    Raises:
        ValueError: an unknown engine; `onnx` with a model, a processor or a device; a model
            without its processor, or the reverse; a device that is not available.
        CheckpointError: the checkpoint is missing, damaged, of another kind, or has no ONNX files
            and `engine` is `onnx`.
    """
    _check_engine(engine)
    if hasattr(model, "extract_affect") and hasattr(model, "facts"):
        if engine not in (None, model.name):
            raise ValueError(f"engine={engine!r}, but the engine that was given is {model.name}")
        return model
    folder = find_onnx_folder(model, processor, engine=engine, revision=revision, device=device)
    if folder is not None:
        from mma_mrnnet.prediction.onnx_engine import open_onnx

        return open_onnx(folder, threads)
    from mma_mrnnet.prediction.torch_engine import open_torch

    return open_torch(model, processor, revision, device)


def _check_engine(engine: str | None) -> None:
    if engine not in (None, *ENGINES):
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}")


def find_onnx_folder(
    model: Any,
    processor: Any = None,
    *,
    engine: str | None = None,
    revision: str = "main",
    device: str | None = None,
) -> Path | None:
    """Return the folder of the ONNX files that `open_engine` runs; None if PyTorch runs the model.

    Arguments and errors as in `open_engine`. Imports neither engine.
    """
    _check_engine(engine)
    is_named = model is None or isinstance(model, str | os.PathLike)
    if not is_named or processor is not None or device not in (None, "cpu"):
        if engine == "onnx":
            raise ValueError(
                "engine='onnx' takes a checkpoint by name, with its own processor, on the CPU; "
                "a model object, another processor or a device needs engine='torch'"
            )
        return None
    if engine == "torch":
        return None
    from mma_mrnnet.prediction.onnx_engine import find_onnx

    return find_onnx(model, revision, required=engine == "onnx")


def open_stage_2(model: Any, processor: Any = None, **options: Any) -> Engine:
    """As `open_engine`, but raise ValueError for a stage-1 model."""
    opened = open_engine(model, processor, **options)
    if not opened.facts.is_stage_2:
        place = f"{model}: " if isinstance(model, str | os.PathLike) else ""
        raise ValueError(
            f"{place}a stage-1 model ({opened.facts.model_type}) estimates affect, not "
            "intensities; a stage-2 one is needed"
        )
    return opened
