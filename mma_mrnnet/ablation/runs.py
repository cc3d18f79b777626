"""One run of a study: train it, predict the held-out clips and the other data, keep what the tables need."""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from mma_mrnnet.ablation.compiled import compile_clips
from mma_mrnnet.ablation.planted import LeakingCollator
from mma_mrnnet.ablation.study import RUN, Study, settled
from mma_mrnnet.ablation.variants import Variant
from mma_mrnnet.data.datasets import ClipDataset
from mma_mrnnet.metrics import rounded
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.checkpoints import complete_checkpoints, write_json
from mma_mrnnet.training.clip_corpora import clip_splits, read_corpus, table_splits
from mma_mrnnet.training.loop import fit, predict_dataset
from mma_mrnnet.training.pixel_stage import pixel_stage
from mma_mrnnet.training.stages import Stage, mma_stage, mrnn_stage

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.npz"


def train_extractor(study: Study, variant: Variant, seed: int) -> None:
    """Trains the extractor behind a run."""
    args = study.extractor_arguments(variant, seed)
    started = time.perf_counter()
    results = _fitted(mma_stage, args)
    _remove_states(args.output)
    scores = results["training"]["history"][results["training"]["best_epoch"] - 1]["scores"]
    record = {"settings": settled(args), "seed": seed, "seconds": time.perf_counter() - started, "validation": scores}
    write_json(args.output / RUN, record)


def train_clips(study: Study, variant: Variant, seed: int) -> None:
    """Trains a run's network on clips, and writes what it says of clips that it did not learn from.

    Raises:
        ValueError: data or settings that cannot be.
    """
    folder, args = study.run_folder(variant, seed), study.arguments(variant, seed)
    started = time.perf_counter()
    stage = (pixel_stage if variant.pixels else mrnn_stage)(args)
    if variant.leaks:
        stage.train_collator = stage.collator = LeakingCollator(stage.collator)
    clips = stage.validation if stage.held_out is None else stage.held_out
    compile_clips(stage)
    results = _fitted(lambda _: stage, args)
    model = type(stage.model).from_pretrained(args.output / "model").eval()
    split = "validation" if stage.held_out is None else "test"
    tables = _predicted(stage, model, clips, args)
    if not (variant.pixels or variant.leaks):
        for data in study.transfer:
            # Of simulated data the test split alone is needed.
            rows = _held_out(replace(args, data=data, clips=[1, 1, args.clips[2]]), stage, model)
            tables |= {f"{data}|{name}": values for name, values in _predicted(stage, model, rows, args).items()}
    _write_arrays(folder / PREDICTIONS, tables)
    _remove_states(args.output)
    shutil.rmtree(args.output / "model", ignore_errors=True)
    training = {name: value for name, value in results["training"].items() if name not in ("history", "hardware")}
    record = {
        "variant": variant.name,
        "seed": seed,
        "settings": settled(args),
        "labels": list(model.config.label_names),
        "evaluated_on": split,
        "data": results["data"],
        "parameters_of_stage_2": _own_parameters(model),
        "seconds": time.perf_counter() - started,
        "training": training,
    }
    write_json(folder / RUN, rounded(record))


def _fitted(make: Callable[[TrainArguments], Stage], args: TrainArguments) -> dict:
    """The results of a training that goes on where a killed one was."""
    args.output.mkdir(parents=True, exist_ok=True)
    args = replace(args, resume=bool(complete_checkpoints(args.output)))
    return fit(make(args), args)


def _held_out(args: TrainArguments, stage: Stage, model: PreTrainedModel) -> ClipDataset:
    """The labelled test clips, else validation clips, of other data, as a trained model reads them."""
    corpus = read_corpus(args)
    if corpus.names != model.config.label_names:
        raise ValueError(f"--transfer {args.data}: its targets are {corpus.names}; not {model.config.label_names}")
    if corpus.holds_tables:
        splits, _, _ = table_splits(corpus, args)
    else:
        splits, _ = clip_splits(corpus, args, model.mma, stage.processor)
    test = splits.get("test")
    return test.rows if test is not None and len(test.rows) else splits["validation"].rows


def _predicted(
    stage: Stage, model: PreTrainedModel, rows: ClipDataset, args: TrainArguments
) -> dict[str, NDArray[np.generic]]:
    """What the tables need of some clips: outputs and labels (N, K), seconds with a face (N,), people (N,)."""
    outputs, labels = predict_dataset(stage, model, rows, args)
    return {
        "intensities": outputs["intensities"].numpy(),
        "labels": labels["labels"].numpy(),
        "seconds": rows.lengths / args.sampling_fps,
        "people": np.array([subject or clip for subject, clip in zip(rows.subjects, rows.clip_ids, strict=True)]),
    }


def _own_parameters(model: PreTrainedModel) -> int:
    extractor = getattr(model, "mma", None)
    count = sum(parameter.numel() for parameter in model.parameters())
    return count - (0 if extractor is None else sum(parameter.numel() for parameter in extractor.parameters()))


def _write_arrays(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    staging = path.with_name(f".{path.name}.tmp")
    with staging.open("wb") as file:
        np.savez_compressed(file, **arrays)
    staging.replace(path)


def _remove_states(output: Path) -> None:
    """Results stay; what a further training would need goes: a study has a hundred runs."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(output / name, ignore_errors=True)
