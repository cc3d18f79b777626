"""Export a checkpoint as a Hub folder: weights, config, processor, code, results, card."""

import os
import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from mma_mrnnet.files import check_new_folder, replaced_folder, write_json, write_text
from mma_mrnnet.hub.cards import RESULT_FILES, CheckpointResults, model_card
from mma_mrnnet.hub.checkpoints import CheckpointError, extractor_of, load_either
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.results import ResultsError, load_json

TASK = "facial-expression-intensity"
"""The task of `transformers.pipeline` that reads a video and returns its intensities."""

PIPELINE_FILE = "pipeline_mma_mrnnet.py"


def export_checkpoint(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write a stage-1 or stage-2 checkpoint as a folder for the Hub, and return the folder.

    Loads with `trust_remote_code=True` without the package, and as our classes with it.

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
        write_text(staging / "README.md", model_card(model, staging))
    return target


def check_target(target: Path) -> None:
    """Raise CheckpointError if `target` is a file, a non-empty folder, or the current folder."""
    try:
        check_new_folder(target)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def add_pipeline(config: PreTrainedConfig, folder: Path) -> None:
    """Make `pipeline(model=folder, trust_remote_code=True)` find our pipeline.

    Copies the pipeline's file to the folder. Save the stage-2 `config` there afterwards.
    """
    shutil.copyfile(str(files("mma_mrnnet") / "prediction" / PIPELINE_FILE), folder / PIPELINE_FILE)
    implementation = f"{Path(PIPELINE_FILE).stem}.FacialExpressionIntensityPipeline"
    config.custom_pipelines = {TASK: {"impl": implementation, "pt": ["AutoModel"], "type": "video"}}


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
