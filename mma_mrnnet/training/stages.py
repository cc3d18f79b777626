"""What differs between the two stages: data, model, scores, and what is done with the best model."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from mma_mrnnet.features.clip_rows import model_digest
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.calibration import LEAST_SLOPE, affine_calibration, calibrate_extractor
from mma_mrnnet.training.clip_corpora import ClipSplit, read_corpus
from mma_mrnnet.training.datasets import ClipCollator, ClipDataset, FrameCollator, FrameDataset
from mma_mrnnet.training.extractor_errors import extractor_errors
from mma_mrnnet.training.facts import clip_facts, frame_facts
from mma_mrnnet.training.frame_corpora import describe_frames, frame_splits, untrained_outputs
from mma_mrnnet.training.intensity_models import new_model
from mma_mrnnet.training.reports import (
    Tensors,
    mean_label,
    mma_report,
    mma_scores,
    mrnn_scores,
    split_report,
    write_predictions,
)
from mma_mrnnet.training.sampling import Order, corpus_draws, mixed, shuffled

logger = logging.getLogger(__name__)

Predict = Callable[[Dataset], tuple[Tensors, Tensors]]


@dataclass
class Stage:
    """Everything `fit` needs of one stage.

    Attributes:
        name: `mma`, `mrnn` or `pixels`; the model's results lie beside it under this name.
        model: what is trained.
        processor: saved beside the model.
        train: items for `train_collator`.
        validation: items for `collator`; chooses the best epoch.
        order: draws the item numbers of one epoch of `train`.
        train_collator: items -> batch, with augmentation.
        collator: items -> batch.
        output_names: fields of the model's output that `score` and `finish` read.
        loss_names: fields of the model's output that its `objective` reads.
        score: (outputs, labels) of a split -> named scores.
        score_name: the one of its scores that chooses the best epoch; more is better.
        finish: (best model, predict) -> the report; may calibrate the model.
        description: what the data are, in words and numbers, for the results.
        held_out: labelled clips of a test split, for `collator`; None where there are none.
        fingerprint: a digest of the data, labels included, and of the extractor behind them: all processes must hold
            the same, and a resumed run what it began with.
        carried_results: result files of an earlier stage that travel with the model.
        begin_epoch: told the epoch's number, from 0, before its first item is read.
    """

    name: str
    model: PreTrainedModel
    processor: MMAMRNNetVideoProcessor
    train: Dataset
    validation: Dataset
    order: Order
    train_collator: Callable[[list[Any]], Tensors]
    collator: Callable[[list[Any]], Tensors]
    output_names: tuple[str, ...]
    loss_names: tuple[str, ...]
    score: Callable[[Tensors, Tensors], dict[str, float]]
    score_name: str
    finish: Callable[[PreTrainedModel, Predict], dict]
    description: dict
    fingerprint: str
    held_out: ClipDataset | None = None
    carried_results: list[Path] = field(default_factory=list)
    begin_epoch: Callable[[int], None] = lambda epoch: None


def monitored_score(args: TrainArguments, names: Sequence[str], default: str) -> str:
    """The score that the user names, else the stage's own; asked for before anything is read that takes long."""
    if args.monitor is not None and args.monitor not in names:
        raise ValueError(f"--monitor must be one of {', '.join(names)}; got {args.monitor!r}")
    return args.monitor or default


def digest_of(*parts: str) -> str:
    """A digest of the parts in their order, as `Stage.fingerprint` takes it."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# Stage 1 -----------------------------------------------------------------------------------------------------------

SCORE_OF = {
    "action_units": "action_unit_correlation",
    "expressions": "expression_f1",
    "valence_arousal": "valence_arousal_ccc",
}
"""The score of each channel; where not all are taught, that of the last one taught chooses the best epoch."""


def mma_stage(args: TrainArguments) -> Stage:
    """Stage 1: the extractor on labelled face crops, or on drawn faces.

    Args:
        args: `data` is a folder or corpora (see `load_frames`), `drawn` or `drawn:partial`; `channels` the outputs that
            labels teach.

    Returns:
        The `Stage`.

    Raises:
        ValueError: settings or data that cannot be; it names them (see `frame_splits`).
    """
    config = _extractor_config(args)
    own_score = (
        "mean_of_tasks" if len(args.channels) == len(SCORE_OF) else SCORE_OF[args.channels[-1]]
    )
    monitored = monitored_score(args, [*SCORE_OF.values(), "mean_of_tasks"], own_score)
    splits = frame_splits(args)
    train, validation = splits.train, splits.validation
    draws = corpus_draws(train.sources, train.expression, args.balance)
    description = describe_frames(args.data, splits, draws)
    logger.info("an epoch draws %s", description["items_an_epoch"])
    _record_supervision(config, train)
    processor = MMAMRNNetVideoProcessor(
        size={"height": args.image_size, "width": args.image_size}, num_frames=args.num_frames
    )

    def finish(model: PreTrainedModel, predict: Predict) -> dict:
        outputs, labels = predict(validation)
        outputs, calibration = calibrate_extractor(model, outputs, labels, validation)
        report = mma_report(outputs, labels, validation, config.action_units)
        errors = extractor_errors(
            outputs, labels, validation, config.action_units, splits.made_up_sources
        )
        return {
            "calibration": calibration,
            "validation": report,
            "errors": errors,
            "facts": frame_facts(train, config),
        }

    torch.manual_seed(args.seed)
    return Stage(
        name="mma",
        model=MMAModel(config).to(memory_format=torch.channels_last),  # an eighth faster on a CPU
        processor=processor,
        train=train,
        validation=validation,
        order=mixed(list(draws.values())),
        train_collator=FrameCollator(
            processor, augmentations=args.augmentations if args.augment else ()
        ),
        collator=FrameCollator(processor),
        output_names=("valence_arousal", "expression_logits", "action_unit_logits"),
        loss_names=("valence_arousal", "expression_logits", "action_unit_logits"),
        score=lambda outputs, labels: mma_scores(outputs, labels, validation.intensity),
        score_name=monitored,
        finish=finish,
        description=description,
        fingerprint=digest_of(train.fingerprint(), validation.fingerprint()),
        begin_epoch=train.begin_epoch,
    )


def _extractor_config(args: TrainArguments) -> MMAConfig:
    return MMAConfig(
        backbone_config={
            "layer_type": args.layer_type,
            "embedding_size": args.embedding_size,
            "hidden_sizes": args.hidden_sizes,
            "depths": args.depths,
            "downsample_in_first_stage": args.downsample_in_first_stage,
        },
        image_size=args.image_size,
        action_units=args.action_units,
        valence_arousal_weight=args.valence_arousal_weight,
        expression_weight=args.expression_weight,
        action_unit_weight=args.action_unit_weight,
        action_unit_concordance_weight=args.action_unit_concordance_weight,
        distribution_matching=args.distribution_matching,
        distribution_matching_weight=args.distribution_matching_weight,
        co_annotation=args.co_annotation,
        dropout=args.dropout,
    )


def _record_supervision(config: MMAConfig, train: FrameDataset) -> None:
    """Writes into the config which outputs the training labels reach, and which nothing teaches."""
    labelled = (~train.intensity.isnan()).any(0).tolist()
    config.supervised_action_units = [
        unit for unit, seen in zip(config.action_units, labelled, strict=True) if seen
    ]
    config.untrained_outputs = untrained_outputs(train, config)
    if config.untrained_outputs:
        logger.warning("nothing teaches these outputs: %s", ", ".join(config.untrained_outputs))


# Stage 2 -----------------------------------------------------------------------------------------------------------


def mrnn_stage(args: TrainArguments) -> Stage:
    """Stage 2: the recurrent part on clips of affect, the extractor fixed inside, or on tables of features.

    Args:
        args: `data` is `simulated`, `clips:FOLDER` (see `load_clip_folder`) or `hume:FOLDER` (see
            `load_hume_reaction`); `mma` the stage-1 checkpoint that the model is built around, None for tables.

    Returns:
        The `Stage`.

    Raises:
        ValueError: data of a kind that is not read here, or no stage-1 checkpoint where `mma` points.
    """
    corpus = read_corpus(args)
    monitored = monitored_score(args, [*corpus.names, "mean_pearson"], "mean_pearson")
    torch.manual_seed(args.seed)
    model, processor, clips = new_model(args, corpus)
    splits = clips.splits
    _warn_of_long_clips(splits, processor)
    names = model.config.label_names
    train, validation = splits["train"].rows, splits["validation"].rows

    return Stage(
        name="mrnn",
        model=model,
        processor=processor,
        train=train,
        validation=validation,
        order=shuffled(len(train)),
        train_collator=ClipCollator(processor),
        collator=ClipCollator(processor),
        output_names=("intensities", "logits"),
        loss_names=("logits",),
        score=lambda outputs, labels: mrnn_scores(outputs, labels, validation, names),
        score_name=monitored,
        finish=lambda model, predict: _calibrated_report(
            model, processor, predict, splits, corpus.id_column, args.output
        ),
        description=clips.description,
        held_out=held_out_of(splits),
        fingerprint=digest_of(
            *clips.fingerprint,
            "" if model.mma is None else model_digest(model.mma),
            *(
                [] if corpus.noise is None else [repr(corpus.noise)]
            ),  # a file beside the extractor, in no setting
        ),
        carried_results=sorted(Path(args.mma).glob("results_mma.json"))
        if args.mma and Path(args.mma).is_dir()
        else [],
    )


def held_out_of(splits: dict[str, ClipSplit]) -> ClipDataset | None:
    """The labelled test clips; None where there are none."""
    rows = splits["test"].rows if "test" in splits else []
    return rows if len(rows) else None


def _warn_of_long_clips(splits: dict[str, ClipSplit], processor: MMAMRNNetVideoProcessor) -> None:
    most = processor.num_frames
    lengths = np.concatenate([split.with_face.lengths for split in splits.values()])
    if (long := int((lengths > most).sum())) > 0:
        logger.warning(
            "%d of %d clips have more than --num_frames %d frames, up to %d: they are %s %d",
            *(long, len(lengths), most, lengths.max(), processor.shortened(), most),
        )


def _calibrated_report(
    model: MMAMRNNetForIntensity,
    processor: MMAMRNNetVideoProcessor,
    predict: Predict,
    splits: dict[str, ClipSplit],
    id_column: str,
    output: Path,
) -> dict:
    """Calibrates the model on validation; scores of validation and test, whose real clips' predictions are written."""
    names = model.config.label_names
    training_mean = mean_label(splits["train"].files)
    outputs, labels = predict(splits["validation"].rows)
    before = split_report(outputs["intensities"], splits["validation"], names, training_mean)
    scale, shift = affine_calibration(outputs["intensities"], labels["labels"])
    flat = [name for name, slope in zip(names, scale.tolist(), strict=True) if slope <= LEAST_SLOPE]
    if flat:
        logger.warning(
            "on validation %s do not rise with their labels: calibrated to nearly a constant",
            ", ".join(flat),
        )
    model.set_calibration(scale.to(model.device), shift.to(model.device))
    report, predicted = report_splits(predict, splits, names, id_column, output)
    return {
        "calibration": {"scale": scale, "shift": shift, "fitted_on": "validation"},
        "validation_before_calibration": before,
        **report,
        "facts": clip_facts(model, processor, predict, splits, predicted),
    }


def report_splits(
    predict: Predict, splits: dict[str, ClipSplit], names: list[str], id_column: str, output: Path
) -> tuple[dict, dict[str, Tensors]]:
    """Scores of validation and of test, where there is one; their real clips' predictions are written to `output`.

    Args:
        predict: as `fit` gives it.
        splits: from `load_clips`.
        names: of the K targets.
        id_column: header of the clips' names in the tables of predictions.
        output: the run's folder.

    Returns:
        `split_report` of each labelled split, and the outputs of each with a clip that can be predicted, by its name.
    """
    report: dict = {}
    predicted: dict[str, Tensors] = {}
    training_mean = mean_label(splits["train"].files)
    for name in [name for name in ("validation", "test") if name in splits]:
        split, intensities = splits[name], torch.zeros(0, len(names))
        if len(split.with_face):
            predicted[name] = predict(split.with_face)[0]
            intensities = predicted[name]["intensities"]
        if split.files:
            write_predictions(
                output / f"predictions_{name}.csv", intensities, split, id_column, training_mean
            )
        if split.is_labelled:
            report[name] = split_report(intensities, split, names, training_mean)
    return report, predicted
