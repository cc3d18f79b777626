"""Load checkpoints of either stage from folders and Hub repositories."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    RemoteEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import VIDEO_PROCESSOR_NAME, resolve_revision

from mma_mrnnet.files import check_new_folder
from mma_mrnnet.hub.errors import explain_error, shorten
from mma_mrnnet.hub.facts import CheckpointError, pretrained_folder
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

Model = MMAModel | MMAMRNNetForIntensity
MODELS: dict[str, type[Model]] = {"mma": MMAModel, "mma_mrnnet": MMAMRNNetForIntensity}


def check_target(target: Path) -> None:
    """Raise CheckpointError if `target` is a file, a non-empty folder, or the current folder."""
    try:
        check_new_folder(target)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def load_pretrained() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Load the bundled checkpoint in eval mode, and its processor; needs no network.

    Stage 1 learnt from labels that no person coded, stage 2 from a simulator: see its card.
    """
    return load_checkpoint(pretrained_folder())


def load_checkpoint(
    folder_or_repo: str | os.PathLike[str], revision: str = "main"
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """Load a stage-2 checkpoint (a folder, or a Hub repository) in eval mode, and its processor.

    Raises CheckpointError if it is missing, damaged, or of another kind.
    """
    model, processor = load_either(folder_or_repo, revision)
    if isinstance(model, MMAModel):
        raise CheckpointError(
            f"{folder_or_repo}: a stage-1 checkpoint (mma) estimates affect, not intensities; "
            "a stage-2 one (mma_mrnnet) is needed"
        )
    return model, processor


def load_extractor(
    folder_or_repo: str | os.PathLike[str],
) -> tuple[MMAModel, MMAMRNNetVideoProcessor]:
    """Load the extractor of either stage's checkpoint in eval mode, and the processor.

    Raises CheckpointError if the checkpoint is missing, damaged, or without an extractor.
    """
    model, processor = load_either(folder_or_repo)
    extractor = extractor_of(model)
    if extractor is None:
        raise CheckpointError(
            f"{folder_or_repo}: reads tables of features and holds no extractor (stage 1)"
        )
    return extractor, processor


def load_either(
    folder_or_repo: str | os.PathLike[str], revision: str = "main"
) -> tuple[Model, MMAMRNNetVideoProcessor]:
    """Load a checkpoint of either stage in eval mode, and its processor.

    Raises CheckpointError if it is missing, damaged, or of another kind.
    """
    # Pin one commit, in case of a push in between.
    commit = cast("str", resolve_revision(folder_or_repo, revision))
    return _load_model(folder_or_repo, commit), _load_processor(folder_or_repo, commit)


def extractor_of(model: Model) -> MMAModel | None:
    """Return the extractor of a model; None if the model reads feature tables.

    Also takes a model of a repository's own code, whose classes are others than ours.
    """
    return cast("MMAModel | None", model if model.config.model_type == "mma" else model.mma)


def weights_digest(extractor: MMAModel) -> str:
    """Return a SHA-256 of all weights of an extractor."""
    digest = hashlib.sha256()
    for name, value in sorted(extractor.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_model(place: str | os.PathLike[str], revision: str) -> Model:
    with _one_line_errors(place):
        # Never runs code of the repository.
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    if config.model_type not in MODELS:
        raise CheckpointError(
            f"{place}: model type {config.model_type!r}; accepted are {', '.join(MODELS)}"
        )
    _refuse_pickled_weights(Path(place))
    with _one_line_errors(place):
        loaded = MODELS[config.model_type].from_pretrained(
            place, revision=revision, output_loading_info=True
        )
        model, info = cast("tuple[Model, dict]", loaded)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"{place}: {len(missing)} weights are missing, for example {missing[0]}; not loaded"
        )
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{place}: {name} holds NaN or infinite weights; not loaded")
    return model.eval()


def _refuse_pickled_weights(folder: Path) -> None:
    """Raise CheckpointError for a folder with pickled weights alone, which can hold programs."""
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled and not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder}: {pickled[0]} holds pickled weights, which are never read. If you trust the "
            "file, load it with torch.load and write its tensors with "
            "safetensors.torch.save_file as model.safetensors"
        )


def _load_processor(place: str | os.PathLike[str], revision: str) -> MMAMRNNetVideoProcessor:
    with _one_line_errors(place):
        if not Path(place).exists():
            with suppress(RemoteEntryNotFoundError):
                # Load it for the error message: transformers does not say why it got no
                # processor.
                hf_hub_download(str(place), VIDEO_PROCESSOR_NAME, revision=revision)
        return MMAMRNNetVideoProcessor.from_pretrained(place, revision=revision)


@contextmanager
def _one_line_errors(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of transformers, safetensors and JSON into a one-line `CheckpointError`."""
    # A path that is not a folder is looked up as a repository.
    absent = "" if Path(place).exists() else "no such folder, and as a repository: "
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        ImportError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        SafetensorError,
        HTTPError,
        HFValidationError,
        StrictDataclassError,
    ) as error:
        # transformers wraps a broken download in advice about folders; use the cause.
        told = explain_error(error) if absent else None
        if told is None:
            short = shorten(error) or type(error).__name__
            told = f"not a checkpoint that can be loaded: {short}"
        raise CheckpointError(f"{place}: {absent}{told}") from error
