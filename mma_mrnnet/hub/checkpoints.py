"""Checkpoints as folders: load the shipped one or any other, export one for the Hub with code and a filled-in card."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

import torch
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    RemoteEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import VIDEO_PROCESSOR_NAME, resolve_revision

from mma_mrnnet.hub.card_metadata import (
    WATTS_A_CORE,
    evaluated_macro_f1,
    model_index,
    package_version,
    training_energy,
)
from mma_mrnnet.hub.errors import one_line, reason
from mma_mrnnet.hub.licence import (
    checkpoint_sources,
    licence_fields,
    none_coded_by_people,
    weights_licence,
)
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import Provenance, read_provenance

logger = logging.getLogger(__name__)

RESULT_FILES = (
    "results_mma.json",
    "results_mrnn.json",
    "results_ceiling.json",
    "results_evaluation.json",
)
MODELS = {"mma": MMAModel, "mma_mrnnet": MMAMRNNetForIntensity}

TASK = "facial-expression-intensity"
"""What `transformers.pipeline` calls a video's way to its intensities."""

PIPELINE_FILE = "pipeline_mma_mrnnet.py"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or exported; the message starts with its place."""


def pretrained_folder() -> Path:
    """The folder of the checkpoint that ships with the package."""
    return Path(str(files("mma_mrnnet") / "pretrained"))


def load_pretrained() -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """The small checkpoint that ships inside the package, in eval mode, and its processor; needs no network.

    Its stage 1 learnt from pseudo-labels, bent photos and renders, its stage 2 from a simulator: see its card.
    """
    return load_checkpoint(pretrained_folder())


def load_checkpoint(
    folder_or_repo: str | os.PathLike[str], revision: str = "main"
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """A stage-2 checkpoint in eval mode, and its processor.

    Args:
        folder_or_repo: a folder, or a Hub repository where the network allows.
        revision: of a repository: a branch, tag or commit.

    Raises:
        CheckpointError: it is missing, damaged, or of another kind.
    """
    model, processor = load_either(folder_or_repo, revision)
    if model.config.model_type != "mma_mrnnet":
        raise CheckpointError(
            f"{folder_or_repo}: a stage-1 checkpoint (mma) gives no intensities; a stage-2 one (mma_mrnnet) is needed"
        )
    return model, processor


def load_extractor(
    folder_or_repo: str | os.PathLike[str],
) -> tuple[MMAModel, MMAMRNNetVideoProcessor]:
    """The extractor of a stage-1 or stage-2 checkpoint in eval mode, and the processor.

    Args:
        folder_or_repo: as `load_checkpoint` takes it.

    Raises:
        CheckpointError: it is missing or damaged, or reads tables of features and holds no extractor.
    """
    model, processor = load_either(folder_or_repo)
    extractor = model if model.config.model_type == "mma" else model.mma
    if extractor is None:
        raise CheckpointError(
            f"{folder_or_repo}: reads tables of features and holds no extractor (stage 1)"
        )
    return extractor, processor


def load_either(
    folder_or_repo: str | os.PathLike[str], revision: str = "main"
) -> tuple[MMAModel | MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """A checkpoint of either stage in eval mode, and its processor.

    Args:
        folder_or_repo: as `load_checkpoint` takes it.
        revision: as there.

    Raises:
        CheckpointError: it is missing, damaged, or of another kind.
    """
    revision = resolve_revision(
        folder_or_repo, revision
    )  # of a repository: one commit, whatever is pushed in between
    return _load_model(folder_or_repo, revision), _load_processor(folder_or_repo, revision)


def weights_digest(extractor: MMAModel) -> str:
    """What tells one extractor's weights from another's: a digest of every number in them."""
    digest = hashlib.sha256()
    for name, value in sorted(extractor.state_dict().items()):
        digest.update(name.encode())
        numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # bfloat16 too
        digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()


def _load_model(place: str | os.PathLike[str], revision: str) -> PreTrainedModel:
    with _one_line_errors(place):
        # It never asks; our own types need no code.
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    if config.model_type not in MODELS:
        raise CheckpointError(
            f"{place}: model type {config.model_type!r}; accepted are {', '.join(MODELS)}"
        )
    with _one_line_errors(place):
        model, info = MODELS[config.model_type].from_pretrained(
            place, revision=revision, output_loading_info=True
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"{place}: {len(missing)} weights are missing, for example {missing[0]}; not loaded"
        )
    return model.eval()


def _load_processor(
    place: str | os.PathLike[str], revision: str = "main"
) -> MMAMRNNetVideoProcessor:
    with _one_line_errors(place):
        if not Path(place).exists():
            with suppress(RemoteEntryNotFoundError):
                # Only to fail in its own words: transformers forgets why it could not get this file.
                hf_hub_download(str(place), VIDEO_PROCESSOR_NAME, revision=revision)
        return MMAMRNNetVideoProcessor.from_pretrained(place, revision=revision)


@contextmanager
def _one_line_errors(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what transformers, safetensors and JSON raise on a bad checkpoint into one `CheckpointError` line."""
    # What is no folder is looked up as a repository, and then says a lot about the network.
    absent = "" if Path(place).exists() else "no such folder, and as a repository: "
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        HTTPError,
        HFValidationError,
        StrictDataclassError,
    ) as error:
        # transformers hides a broken download behind advice about folders; what led to its error says more.
        told = reason(error) if absent else None
        told = (
            told
            or f"not a checkpoint that can be loaded: {one_line(error) or type(error).__name__}"
        )
        raise CheckpointError(f"{place}: {absent}{told}") from error


def export_checkpoint(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Writes a folder that can be uploaded to the Hub as it is: weights, config, processor, code, results and card.

    It loads with `trust_remote_code=True` where the package is not installed, and without where it is.

    Args:
        source: a stage-1 or stage-2 checkpoint, such as `runs/mrnn/model`.
        target: a folder that does not exist yet, or is empty.

    Returns:
        `target`.

    Raises:
        CheckpointError: the source cannot be loaded, or the target holds something.
    """
    target = Path(target)
    refuse_filled(target)
    model, processor = load_either(source)
    extractor_config = getattr(model.config, "mma_config", model.config)
    if extractor_config is not None:
        extractor_config._name_or_path = ""  # where the extractor lay when it was trained
    place = target.resolve()  # of a link the folder behind it
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_name(f".{place.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        if model.config.model_type == "mma_mrnnet" and model.mma is not None:
            staging.mkdir()
            add_pipeline(model.config, staging)
            processor.fps = model.config.sampling_fps
        model.save_pretrained(staging)
        for weights in staging.glob("*.safetensors"):
            shutil.copymode(
                staging / "config.json", weights
            )  # safetensors lets nobody but the owner read them
        processor.save_pretrained(staging)
        if model.config.model_type == "mma":
            processor.image_processor().save_pretrained(staging)
        for name in RESULT_FILES:
            if (Path(source) / name).is_file():
                shutil.copyfile(Path(source) / name, staging / name)
        (staging / "README.md").write_text(model_card(model, staging), encoding="utf-8")
        if place.exists():
            place.rmdir()
        staging.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def refuse_filled(target: Path) -> None:
    """Raises CheckpointError where `target` is a file, a folder that holds something, or the one we are in."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists and is not an empty folder; nothing was written")
    if (
        target.resolve() == Path.cwd()
    ):  # replacing it would leave the shell in a folder that is gone
        raise CheckpointError(
            f"{target}: is the current folder; name a folder that is made inside it"
        )


def add_pipeline(config: PreTrainedConfig, folder: Path) -> None:
    """Lets `pipeline(model=folder, trust_remote_code=True)` find our pipeline: its file, and the config's word of it.

    Args:
        config: of a stage-2 model that reads videos; to be saved into the folder afterwards.
        folder: where the file is put.
    """
    shutil.copyfile(str(files("mma_mrnnet") / "prediction" / PIPELINE_FILE), folder / PIPELINE_FILE)
    implementation = f"{Path(PIPELINE_FILE).stem}.FacialExpressionIntensityPipeline"
    config.custom_pipelines = {TASK: {"impl": implementation, "pt": ["AutoModel"], "type": "video"}}


def model_card(model: PreTrainedModel, folder: Path) -> str:
    """The card of a checkpoint: the template of its kind, every number from the result files in `folder`.

    Args:
        model: the checkpoint.
        folder: holds the processor, `results_mma.json` and, for stage 2, `results_mrnn.json`; results that are missing
            are called unmeasured. Where there is a `results_evaluation.json`, stage 1's tables are its own.

    Returns:
        Markdown with YAML metadata.
    """
    results = _results_of(folder)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    stage1, stage2 = results.get("results_mma.json"), results.get("results_mrnn.json")
    evaluation = _evaluation_of(results.get("results_evaluation.json"), model)
    sources = _sources_of(results, model)
    licence = weights_licence(sources)
    stage1_sources = [] if stage1 is None else read_provenance(stage1)
    task = task_of(model.config)
    data = ModelCardData(
        **licence_fields(licence),
        library_name="transformers",
        pipeline_tag=task,
        tags=[
            "facial-expression",
            "action-units",
            "valence-arousal",
            "affective-computing",
            model.config.model_type,
        ],
        model_name=model.config.model_type.replace("_", "-"),
        eval_results=model_index(task, stage1, stage2, evaluation, _simulated(model.config))
        or None,
    )
    card = ModelCard.from_template(
        data,
        template_str=card_template(model.config.model_type),
        config=model.config,
        mma_config=getattr(model.config, "mma_config", model.config),
        processor=_load_processor(folder),
        stage1=stage1,
        stage2=stage2,
        licence=licence,
        sources=sources,
        stage1_sources=stage1_sources,
        none_coded_by_people=none_coded_by_people(stage1_sources),
        evaluation=evaluation,
        evaluated_macro_f1=evaluated_macro_f1,
        energy={
            stage: training_energy(each)
            for stage, each in ((1, stage1), (2, stage2))
            if each is not None
        },
        watts_a_core=WATTS_A_CORE,
        version=package_version(),
        ceiling=results.get("results_ceiling.json"),
        megabytes=f"{weights / 1e6:.1f}",
        parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
    )
    return str(card)


def checkpoint_provenance(
    model: PreTrainedModel, folder: str | os.PathLike[str]
) -> list[Provenance]:
    """Return where a checkpoint's weights come from, by the result files in its folder."""
    return _sources_of(_results_of(Path(folder)), model)


def _results_of(folder: Path) -> dict[str, dict]:
    """The result files of a folder, by name; none for a repository of the Hub."""
    return {
        name: json.loads((folder / name).read_text("utf-8"))
        for name in RESULT_FILES
        if (folder / name).is_file()
    }


def _sources_of(results: dict[str, dict], model: PreTrainedModel) -> list[Provenance]:
    is_stage1 = isinstance(model, MMAModel)
    return checkpoint_sources(
        results, has_extractor=is_stage1 or model.mma is not None, has_intensities=not is_stage1
    )


def _evaluation_of(evaluation: dict | None, model: PreTrainedModel) -> dict | None:
    """The evaluation, unless it is of other weights: a file that lay there before the model was trained again."""
    if evaluation is None:
        return None
    extractor = model if isinstance(model, MMAModel) else model.mma
    recorded = evaluation["model"].get("weights")
    if recorded is not None and (extractor is None or recorded != weights_digest(extractor)):
        logger.warning("results_evaluation.json is of other weights; the card leaves it out")
        return None
    return evaluation


def _simulated(config: PreTrainedConfig) -> bool:
    return bool(getattr(config, "simulated_labels", False))


def task_of(config: PreTrainedConfig) -> str:
    """The Hub's name for what a checkpoint does."""
    if config.model_type == "mma":
        return "image-classification"
    return "video-classification" if config.feature_names is None else "tabular-regression"


def card_template(model_type: str) -> str:
    """The kind's template, with the parts that both kinds share put where it names them."""
    folder = template_folder("hub_cards")
    template = (folder / f"{model_type}.md").read_text("utf-8")
    pieces = re.split(
        r"^(<!-- .+ -->)$", (folder / "parts.md").read_text("utf-8"), flags=re.MULTILINE
    )
    for mark, part in zip(pieces[1::2], pieces[2::2], strict=True):
        template = template.replace(mark, part.strip())
    return template


def template_folder(name: str) -> Path:
    """`hub_cards`, `spaces_demo` or `examples`: inside the installed package, or at the top of a checkout."""
    package = Path(str(files("mma_mrnnet"))).resolve()  # a checkout may be reached by a link
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name}: neither in {package} nor in {package.parent}")
