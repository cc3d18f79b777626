"""Export a checkpoint as a Hub folder: weights, config, processor, code, results, card."""

import logging
import os
import re
import shlex
import shutil
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modelcard import TrainingSummary

from mma_mrnnet.files import replaced_folder, write_json, write_text
from mma_mrnnet.hub.cards import (
    RESULT_FILES,
    BaseCheckpoint,
    CheckpointResults,
    model_card,
    settings_card,
)
from mma_mrnnet.hub.checkpoints import Model, check_target, extractor_of, load_either
from mma_mrnnet.hub.facts import (
    EXTRACTOR,
    INTENSITIES,
    SETTINGS,
    WEIGHTS,
    checkpoint_digest,
    read_settings,
)
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.registration import TASK
from mma_mrnnet.results import ResultsError, load_json

logger = logging.getLogger(__name__)

PIPELINE_FILE = "pipeline_mma_mrnnet.py"


def export_checkpoint(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write a stage-1 or stage-2 checkpoint as a folder for the Hub, and return the folder.

    Loads with `trust_remote_code=True` without the package, and as our classes with it. ONNX
    files of the source (`export_onnx`) are copied.

    Raises:
        CheckpointError: the source cannot be loaded, or the target is not new or empty.
    """
    target = Path(target)
    check_target(target)
    model, processor = load_either(source)
    CheckpointResults.read(Path(source))  # fails on a damaged file before anything is written
    extractor = extractor_of(model)
    if extractor is not None:
        extractor.config._name_or_path = ""  # the extractor's path during training
        if not isinstance(model, MMAModel):
            model.config.extractor_config._name_or_path = ""
    with replaced_folder(target) as staging:
        if not isinstance(model, MMAModel) and extractor is not None:
            add_pipeline(model.config, staging)
            processor.fps = model.config.sampling_fps
        model.save_pretrained(staging)
        for weights in staging.glob("*.safetensors"):
            # safetensors makes them readable by the owner only.
            shutil.copymode(staging / "config.json", weights)
        processor.save_pretrained(staging)
        if isinstance(model, MMAModel):
            processor.image_processor().save_pretrained(staging)
        for name in RESULT_FILES:
            if (Path(source) / name).is_file():
                _copy_results(Path(source) / name, staging / name)
        _copy_onnx(Path(source), staging)
        write_text(staging / "README.md", model_card(model, staging))
    return target


def add_pipeline(config: PreTrainedConfig, folder: Path) -> None:
    """Make `pipeline(model=folder, trust_remote_code=True)` find our pipeline.

    Copies the pipeline's file to the folder. Save the stage-2 `config` there afterwards.
    """
    shutil.copyfile(str(files("mma_mrnnet") / "prediction" / PIPELINE_FILE), folder / PIPELINE_FILE)
    implementation = f"{Path(PIPELINE_FILE).stem}.FacialExpressionIntensityPipeline"
    config.custom_pipelines = {TASK: {"impl": implementation, "pt": ["AutoModel"], "type": "video"}}


# Folders that transformers uploads -------------------------------------------------------------


def write_card(part: object, folder: Path) -> None:
    """Write the card of a model, processor or config into the folder that transformers uploads.

    With a model come the result files of the checkpoint that it was loaded from, but those of
    weights that changed since. Of settings alone, only transformers' placeholder is replaced.
    """
    path = folder / "README.md"
    if isinstance(part, PreTrainedModel):
        model = cast("Model", part)
        base = _add_results(model, folder)
        write_text(path, model_card(model, folder, base))
    elif path.is_file() and "Model Card for Model ID" in path.read_text("utf-8"):
        what = "model" if isinstance(part, PreTrainedConfig) else "processor"
        write_text(path, settings_card(what))


def use_card(summary: TrainingSummary, trainer: Any) -> None:
    """Let a `Trainer` of our model write our card, its own record of the training below.

    Other models keep transformers' card. `registration` calls this for each summary.
    """
    if isinstance(trainer.model, MMAModel | MMAMRNNetForIntensity):
        make_text = summary.to_model_card
        folder = Path(trainer.args.output_dir)
        summary.to_model_card = lambda: _trainer_card(  # type: ignore[method-assign]
            trainer.model, folder, make_text()
        )


def _trainer_card(model: Model, folder: Path, made_by_trainer: str) -> str:
    """Write our card; return it with the part on the training of transformers' card."""
    write_card(model, folder)
    theirs, ours = ModelCard(made_by_trainer), ModelCard.load(folder / "README.md")
    for name in ("base_model", "datasets", "language"):
        if (value := theirs.data.get(name)) is not None:
            ours.data[name] = value
    ours.data["tags"] = sorted({*ours.data["tags"], *(theirs.data.get("tags") or ())})
    training = theirs.text.partition("## Training procedure")[2].strip()
    ours.text += f"\n\n## Training by transformers' Trainer\n\n{training}\n"
    return str(ours)


def _add_results(model: Model, folder: Path) -> BaseCheckpoint | None:
    """Copy the result files that are true of a model; return its base if weights changed."""
    origin, is_repository = _origin_of(model)
    if origin is None:
        return None
    found: dict[str, Tensor] = {}
    for path in origin.glob("*.safetensors"):
        found |= load_file(path)
    extractor = extractor_of(model)
    of_extractor = {} if extractor is None else extractor.state_dict()
    without_prefix = {name.removeprefix("mma."): value for name, value in found.items()}
    is_same_extractor = _are_in(of_extractor, without_prefix)
    is_stage_1 = model.config.model_type == "mma"
    is_same = is_same_extractor if is_stage_1 else _are_in(model.state_dict(), found)
    for name in RESULT_FILES:
        is_of_extractor = name in ("results_mma.json", "results_evaluation.json")
        is_true = is_same_extractor if is_of_extractor else is_same and not is_stage_1
        if is_true and (origin / name).is_file():
            _copy_results(origin / name, folder / name)
    if is_same:
        return None
    name = model.config._name_or_path if is_repository else origin.name
    return BaseCheckpoint(name, is_repository, CheckpointResults.read(origin).sources(model))


def _origin_of(model: Model) -> tuple[Path | None, bool]:
    """Return the folder that a model was loaded from, and whether it is of a Hub repository."""
    place, commit = model.config._name_or_path, getattr(model.config, "_commit_hash", None)
    if place and Path(place).is_dir():
        return Path(place), False
    if place and commit:
        with suppress(OSError, HTTPError):  # no network: nothing is known of its results
            patterns = ["*.safetensors", *RESULT_FILES]
            return Path(snapshot_download(place, revision=commit, allow_patterns=patterns)), True
    return None, False


def _are_in(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Return whether all our weights equal theirs, in our precision."""
    return all(
        name in theirs and torch.equal(theirs[name].to(value.dtype), value.cpu())
        for name, value in ours.items()
    )


def _copy_onnx(source: Path, target: Path) -> None:
    """Copy the ONNX files of a checkpoint, which read its weights, beside the same weights."""
    settings = read_settings(source)
    if settings is None:
        return
    if (source / WEIGHTS).read_bytes() != (target / WEIGHTS).read_bytes():
        logger.warning("%s: its ONNX files are left out: the weights were saved anew", source)
        return
    for name in (EXTRACTOR, INTENSITIES):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    write_json(target / SETTINGS, {**settings, "checkpoint_sha256": checkpoint_digest(target)})


# Local places ----------------------------------------------------------------------------------

PLACES = ("command", "arguments", "model", "data")
"""Keys of result files under which a text may be a path as a whole."""

_STARTS_AS_PLACE = re.compile(r"(?:\w+:)?(?:~|\.{1,2})?[/\\]")
_PLACE_IN_TEXT = re.compile(r"(?<![\w:/\\.<>)\]])(?:[A-Za-z]:|~|\.{1,2})?[/\\][^\s,;:'\"`()<>]+")


def _copy_results(source: Path, target: Path) -> None:
    """Copy a result file with local paths cut to their names; ResultsError if unreadable."""
    results = load_json(source)
    try:
        cleaned = _hide_places(results)
    except RecursionError as error:
        raise ResultsError(f"{source}: is nested too deeply for a result file") from error
    if cleaned == results:
        shutil.copyfile(source, target)
    else:
        write_json(target, cleaned)


def _hide_places(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        inner = key if key in PLACES else ""
        return {name: _hide_places(item, inner or name) for name, item in value.items()}
    if isinstance(value, list):
        return [_hide_places(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key == "command":
        try:
            return shlex.join(map(_name_places, shlex.split(value)))
        except ValueError:  # not a command line
            pass
    is_prose = re.search(r"\s\S*[/\\]", value) and not _STARTS_AS_PLACE.match(value)
    if key == "arguments" or (key in PLACES and not is_prose):
        return _name_places(value)
    return _PLACE_IN_TEXT.sub(lambda found: _name_place(found[0]), value)


def _name_places(word: str) -> str:
    """Cut the paths in `PATH`, `NAME:PATH` or a comma-separated list to their names."""
    parts = []
    for part in word.split(","):
        corpus = re.match(r"\w{2,}:(?!//)", part)  # a single letter before a colon is a drive
        start = corpus.end() if corpus else 0
        parts.append(part[:start] + _name_place(part[start:]))
    return ",".join(parts)


def _name_place(place: str) -> str:
    return re.split(r"[/\\]+", place.rstrip("/\\"))[-1] if re.search(r"[/\\]", place) else place
