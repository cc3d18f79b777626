"""Run a checkpoint's ONNX files with onnxruntime; imports neither PyTorch nor transformers."""

import logging
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mma_mrnnet.hub.facts import (
    CONFIGS,
    EXTRACTOR,
    INTENSITIES,
    SETTINGS,
    WEIGHTS,
    CheckpointError,
    CheckpointFacts,
    pretrained_folder,
    read_settings,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.getLogger(__name__)

_FILES = [SETTINGS, EXTRACTOR, INTENSITIES, WEIGHTS, *CONFIGS]


class OnnxEngine:
    """The `Engine` of a folder with ONNX files; see `hub.onnx.export_onnx`.

    Raises:
        CheckpointError: a file is missing or damaged, or the files do not belong together.
    """

    name = "onnx"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        settings = read_settings(folder)
        if settings is None:
            raise CheckpointError(f"{folder}: has no {SETTINGS}, hence no ONNX files")
        self.folder, self.threads = folder, threads
        self.facts = CheckpointFacts.from_json(settings)
        self._extractor = self._intensities = None
        if self.facts.image_size is not None:
            self._extractor = _open_session(folder / EXTRACTOR, threads)
        if self.facts.is_stage_2:
            self._intensities = _open_session(folder / INTENSITIES, threads)
            outputs = [output.name for output in self._intensities.get_outputs()]
            self._splits = "contributions" in outputs

    def __reduce__(self) -> Any:
        """Pickle the place of the files only."""
        return open_onnx, (self.folder, self.threads)

    def extract_affect(self, crops: list[np.ndarray]) -> np.ndarray:
        """Return (N, A) float32; see `Engine`."""
        if self._extractor is None or self.facts.image_size is None:
            raise ValueError("this model reads tables of features and has no extractor for images")
        if not crops:
            return np.zeros((0, len(self.facts.affect_names)), np.float32)
        sized = np.stack([_resize(crop, self.facts.image_size) for crop in crops])
        (affect,) = self._extractor.run(["affect"], {"crops": sized})
        return affect

    def predict_intensities(self, affect: np.ndarray, frame_mask: np.ndarray) -> np.ndarray:
        """Return (B, K) float32; see `Engine`."""
        return self._run(["intensities"], affect, frame_mask)[0]

    def split_by_frame(
        self, affect: np.ndarray, frame_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return contributions and constants; see `Engine`."""
        if not self._splits:
            return None
        contributions, constant = self._run(["contributions", "constant"], affect, frame_mask)
        return contributions, constant

    def _run(
        self, outputs: list[str], affect: np.ndarray, frame_mask: np.ndarray
    ) -> list[np.ndarray]:
        assert self._intensities is not None
        return self._intensities.run(outputs, {"affect": affect, "frame_mask": frame_mask})


def find_onnx(
    place: str | os.PathLike[str] | None, revision: str, *, required: bool
) -> Path | None:
    """Return the folder with the ONNX files of a checkpoint, or None if PyTorch must run it.

    `place` is a folder or a Hub repository, from which the files are downloaded; None is the
    bundled checkpoint. Files that were made from other weights are not used, with a warning.

    Raises:
        CheckpointError: there is none, and one is `required`.
    """
    reason = "onnxruntime is not installed"
    if find_spec("onnxruntime") is not None:
        try:
            folder = _local_folder(place, revision)
            if folder is not None and read_settings(folder) is not None:
                return folder
            reason = f"has no ONNX files ({SETTINGS})"
        except CheckpointError as error:
            if required:
                raise
            logger.warning("%s; PyTorch runs it", error)
    if required:
        where = "the checkpoint that ships" if place is None else place
        raise CheckpointError(f"{where}: engine='onnx' cannot run it: {reason}")
    return None


@cache
def open_onnx(folder: Path, threads: int) -> OnnxEngine:
    """Return the engine of a folder, opened once per process and number of threads."""
    return OnnxEngine(folder, threads)


def _local_folder(place: str | os.PathLike[str] | None, revision: str) -> Path | None:
    if place is None:
        return pretrained_folder()
    if Path(place).is_dir():
        return Path(place)
    if isinstance(place, os.PathLike) or Path(place).exists():
        return None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        hf_hub_download(place, SETTINGS, revision=revision)
        return Path(snapshot_download(place, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, OSError):  # PyTorch's loader says what is wrong
        return None


def _open_session(path: Path, threads: int) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin would take the core of whoever has work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: no model that can be opened: {reason}") from error


def _resize(crop: np.ndarray, side: int) -> np.ndarray:
    """Return a crop as (S, S, 3) uint8, resized as the processor does it."""
    if crop.shape == (side, side, 3):
        return crop
    return np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BILINEAR))
