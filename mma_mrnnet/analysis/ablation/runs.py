"""One run of a study: train it, predict the held-out clips and the other data, keep what the tables need."""

import copy
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from mma_mrnnet.analysis.ablation.compiled import compile_clips
from mma_mrnnet.analysis.ablation.planted import LeakingCollator
from mma_mrnnet.analysis.ablation.study import Study, write_record
from mma_mrnnet.analysis.ablation.variants import Variant
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.checkpoints import complete_checkpoints
from mma_mrnnet.training.clip_corpora import input_of, load_clips, read_corpus
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.loop import fit, predict_dataset
from mma_mrnnet.training.pixel_stage import pixel_stage
from mma_mrnnet.training.stages import Stage, mma_stage, mrnn_stage

PREDICTIONS = "predictions.npz"


def train_extractor(study: Study, variant: Variant, seed: int) -> None:
    """Trains the extractor behind a run."""
    args = study.extractor_arguments(variant, seed)
    started = time.perf_counter()
    results = _fitted(mma_stage, args)
    scores = results["training"]["history"][results["training"]["best_epoch"] - 1]["scores"]
    write_record(
        args.output,
        args,
        {"seed": seed, "seconds": time.perf_counter() - started, "validation": scores},
    )
    _remove_states(args.output)


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
    tables, refused = _predicted(stage, model, clips, args), {}
    for data in () if variant.pixels or variant.leaks else study.transfer:
        try:
            elsewhere = study.elsewhere(args, data)
            rows = _held_out(elsewhere, stage, model)
        except ValueError as error:  # such as another frame rate than that of stored crops
            refused[data] = str(error)
            continue
        tables |= {
            f"{data}|{name}": values
            for name, values in _predicted(stage, model, rows, elsewhere).items()
        }
    _write_arrays(folder / PREDICTIONS, tables)
    training = {
        name: value
        for name, value in results["training"].items()
        if name not in ("history", "hardware")
    }
    record = {
        "variant": variant.name,
        "seed": seed,
        "labels": list(model.config.label_names),
        "evaluated_on": split,
        "data": results["data"],
        "parameters_of_stage_2": _own_parameters(model),
        "seconds": time.perf_counter() - started,
        "training": training,
        "not_tried_on": refused,
    }
    write_record(folder, args, record)
    _remove_states(args.output)
    shutil.rmtree(args.output / "model", ignore_errors=True)


def _fitted(make: Callable[[TrainArguments], Stage], args: TrainArguments) -> dict:
    """The results of a training that goes on where a killed one was."""
    args.output.mkdir(parents=True, exist_ok=True)
    args = replace(args, resume=bool(complete_checkpoints(args.output)))
    return fit(make(args), args)


def _held_out(args: TrainArguments, stage: Stage, model: PreTrainedModel) -> ClipDataset:
    """The labelled test clips, else validation clips, of other data, as a trained model reads them.

    Raises:
        ValueError: the model cannot read them.
    """
    corpus = read_corpus(args)
    # A copy: reading clips may move the extractor to another device than the rest of the model.
    read = input_of(copy.deepcopy(model), stage.processor)
    splits = load_clips(corpus, args, read).splits
    test = splits.get("test")
    return test.rows if test is not None and len(test.rows) else splits["validation"].rows


def _predicted(
    stage: Stage, model: PreTrainedModel, rows: ClipDataset, args: TrainArguments
) -> dict[str, NDArray[np.generic]]:
    """What the tables need of the reactions: outputs and labels (N, K), seconds with a face (N,), people (N,)."""
    outputs, labels = predict_dataset(stage, model, rows, args)
    chosen = np.array(rows.kinds) == "reaction"  # as in training's own scores
    kind, _, domain = args.data.partition(":")
    rate = (
        domain_named(domain or None).rate(args.sampling_fps)
        if kind == "simulated"
        else args.sampling_fps
    )
    people = [subject or clip for subject, clip in zip(rows.subjects, rows.clip_ids, strict=True)]
    return {
        "intensities": outputs["intensities"].numpy()[chosen],
        "labels": labels["labels"].numpy()[chosen],
        "seconds": (rows.lengths / rate)[chosen],
        "people": np.array(people)[chosen],
    }


def _own_parameters(model: PreTrainedModel) -> int:
    extractor = getattr(model, "mma", None)
    count = sum(parameter.numel() for parameter in model.parameters())
    return count - (
        0 if extractor is None else sum(parameter.numel() for parameter in extractor.parameters())
    )


def _write_arrays(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    staging = path.with_name(f".{path.name}.tmp")
    with staging.open("wb") as file:
        np.savez_compressed(file, **arrays)
    staging.replace(path)


def _remove_states(output: Path) -> None:
    """Results stay; what a further training would need goes: a study has a hundred runs."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(output / name, ignore_errors=True)
