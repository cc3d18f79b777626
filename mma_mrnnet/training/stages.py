"""What differs between the two stages: data, model, scores, and what is done with the best model."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from mma_mrnnet.data.datasets import ClipCollator, ClipDataset, FrameCollator, FrameDataset
from mma_mrnnet.metrics import (
    area_under_roc,
    concordance_scores,
    f1_scores,
    macro_f1,
    mean_absolute_errors,
    pearson_scores,
)
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    PRESENT_PROBABILITY,
    VALENCE_AROUSAL,
    action_unit_name,
    is_present,
)
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.clip_corpora import ClipCorpus, clip_splits, read_corpus
from mma_mrnnet.training.frame_corpora import description_of, frame_splits
from mma_mrnnet.training.sampling import Order, corpus_draws, mixed, shuffled

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
Predict = Callable[[Dataset], tuple[Tensors, Tensors]]


@dataclass
class Stage:
    """Everything `fit` needs of one stage.

    Attributes:
        name: `mma` or `mrnn`.
        model: what is trained.
        processor: saved beside the model.
        train: items for `train_collator`.
        validation: items for `collator`; chooses the best epoch.
        order: draws the item numbers of one epoch of `train`.
        train_collator: items -> batch, with augmentation.
        collator: items -> batch.
        output_names: fields of the model's output that `score` reads.
        loss_names: fields of the model's output that its `objective` reads.
        score: (outputs, labels) of a split -> named scores.
        score_name: the score that chooses the best epoch; more is better.
        finish: (best model, predict) -> the report; may calibrate the model.
        description: what the data are, in words and numbers, for the results.
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
    carried_results: list[Path] = field(default_factory=list)
    begin_epoch: Callable[[int], None] = lambda epoch: None


# Stage 1 -----------------------------------------------------------------------------------------------------------


def mma_stage(args: TrainArguments) -> Stage:
    """Stage 1: the extractor on labelled face crops, or on drawn faces.

    Args:
        args: `data` is a folder or corpora (see `load_frames`) or `drawn`.

    Returns:
        The `Stage`.

    Raises:
        ValueError: settings or data that cannot be; it names them (see `frame_splits`).
    """
    config = MMAConfig(
        backbone_config={
            "layer_type": args.layer_type,
            "embedding_size": args.embedding_size,
            "hidden_sizes": args.hidden_sizes,
            "depths": args.depths,
        },
        image_size=args.image_size,
        action_units=args.action_units,
        distribution_matching=args.distribution_matching,
        co_annotation=args.co_annotation,
        dropout=args.dropout,
    )
    train, validation = frame_splits(args)
    draws = corpus_draws(train.sources, train.expression, args.balance)
    description = description_of(args.data, train, validation, draws)
    logger.info("an epoch draws %s", description["items_an_epoch"])
    labelled = (~train.intensity.isnan()).any(0).tolist()
    config.supervised_action_units = [unit for unit, seen in zip(config.action_units, labelled, strict=True) if seen]
    processor = MMAMRNNetVideoProcessor(
        size={"height": args.image_size, "width": args.image_size}, num_frames=args.num_frames
    )

    def finish(model: PreTrainedModel, predict: Predict) -> dict:
        outputs, labels = predict(validation)
        return {"validation": mma_report(outputs, labels, validation, config.action_units)}

    torch.manual_seed(args.seed)
    return Stage(
        name="mma",
        model=MMAModel(config).to(memory_format=torch.channels_last),  # an eighth faster on a CPU
        processor=processor,
        train=train,
        validation=validation,
        order=mixed(list(draws.values())),
        train_collator=FrameCollator(processor, augmentations=args.augmentations if args.augment else ()),
        collator=FrameCollator(processor),
        output_names=("valence_arousal", "expression_logits", "action_unit_logits"),
        loss_names=("valence_arousal", "expression_logits", "action_unit_logits"),
        score=lambda outputs, labels: mma_scores(outputs, labels, validation.intensity),
        score_name="mean_of_tasks",
        finish=finish,
        description=description,
        begin_epoch=train.begin_epoch,
    )


def mma_scores(outputs: Tensors, labels: Tensors, intensity: Tensor) -> dict[str, float]:
    """One number a task, and their mean: AU correlation with the intensity labels, expression macro F1, CCC."""
    valence_arousal = labels["valence_arousal_labels"]
    scores = {
        "action_unit_correlation": _mean_where_labels_vary(
            pearson_scores(outputs["action_unit_logits"].sigmoid(), intensity), intensity
        ),
        "expression_f1": macro_f1(outputs["expression_logits"].argmax(-1), labels["expression_labels"]),
        "valence_arousal_ccc": _mean_where_labels_vary(
            concordance_scores(outputs["valence_arousal"], valence_arousal), valence_arousal
        ),
    }
    tasks = torch.tensor(list(scores.values()), dtype=torch.float64)
    return {**scores, "mean_of_tasks": float(tasks.nanmean())}


def _mean_where_labels_vary(scores: Tensor, target: Tensor) -> float:
    """Mean of (K,) scores over the columns whose labels vary; an output that does not vary there counts as 0.

    Otherwise a task that collapsed to a constant would drop out of the mean, and could win the best epoch.
    """
    labelled = [column[~column.isnan()] for column in target.unbind(1)]
    varies = torch.tensor([len(column) > 1 and bool(column.max() > column.min()) for column in labelled])
    return float(scores.nan_to_num(0.0)[varies].mean())


def mma_report(outputs: Tensors, labels: Tensors, rows: FrameDataset, action_units: list[int]) -> dict:
    """Scores of a split, for all rows and for each source of images.

    Each source has, for each action unit, the correlation with the intensity labels, F1 of presence and the number
    of annotated and positive rows; expression macro F1, accuracy and confusion; CCC of valence and arousal.
    """
    sources = torch.tensor([sorted(set(rows.sources)).index(source) for source in rows.sources])
    report = {"all": _mma_report_of(outputs, labels, rows.intensity, action_units)}
    for number, source in enumerate(sorted(set(rows.sources))):
        chosen = sources == number
        report[source] = _mma_report_of(
            {name: value[chosen] for name, value in outputs.items()},
            {name: value[chosen] for name, value in labels.items()},
            rows.intensity[chosen],
            action_units,
        )
    return report


def _mma_report_of(outputs: Tensors, labels: Tensors, intensity: Tensor, action_units: list[int]) -> dict:
    probability = outputs["action_unit_logits"].sigmoid()
    annotated, present = ~intensity.isnan(), is_present(intensity)
    correlation = pearson_scores(probability, intensity)
    f1 = f1_scores(probability >= PRESENT_PROBABILITY, present, annotated)
    expression = labels["expression_labels"]
    labelled = expression != NO_CLASS
    predicted = outputs["expression_logits"].argmax(-1)
    confusion = torch.zeros(len(EXPRESSIONS), len(EXPRESSIONS), dtype=torch.long)
    confusion.index_put_((expression[labelled], predicted[labelled]), torch.tensor(1), accumulate=True)
    happiness = outputs["expression_logits"].softmax(-1)[:, EXPRESSIONS.index("happiness")]
    smiles_or_neutral = (expression == EXPRESSIONS.index("happiness")) | (expression == EXPRESSIONS.index("neutral"))
    smiling = expression[smiles_or_neutral] == EXPRESSIONS.index("happiness")
    concordance = concordance_scores(outputs["valence_arousal"], labels["valence_arousal_labels"])
    return {
        "images": len(intensity),
        "action_units": {
            action_unit_name(unit): {
                "correlation": correlation[column].item(),
                "f1": f1[column].item(),
                "annotated": int(annotated[:, column].sum()),
                "present": int(present[:, column].sum()),
            }
            for column, unit in enumerate(action_units)
        },
        "mean_action_unit_correlation": correlation.nanmean().item(),
        "mean_action_unit_f1": f1.nanmean().item(),
        "expression_images": int(labelled.sum()),
        "expression_macro_f1": macro_f1(predicted, expression),
        "expression_accuracy": (predicted == expression)[labelled].double().mean().item(),
        "expression_confusion_rows_are_labels": confusion.tolist(),
        "smiling_against_neutral": {
            "smiling": int(smiling.sum()),
            "neutral": int((~smiling).sum()),
            "auc_of_happiness": area_under_roc(happiness[smiles_or_neutral].numpy(), smiling.numpy()),
        },
        "valence_arousal_images": int((~labels["valence_arousal_labels"].isnan()).any(-1).sum()),
        "valence_arousal_ccc": dict(zip(VALENCE_AROUSAL, concordance.tolist(), strict=True)),
    }


# Stage 2 -----------------------------------------------------------------------------------------------------------


def mrnn_stage(args: TrainArguments) -> Stage:
    """Stage 2: the recurrent part on clips of affect, the extractor fixed inside.

    Args:
        args: `data` is `simulated`, `clips:FOLDER` (see `load_clip_folder`) or `hume:FOLDER` (see
            `load_hume_reaction`); `mma` the stage-1 checkpoint that the model is built around.

    Returns:
        The `Stage`.

    Raises:
        ValueError: data of a kind that is not read here, or no stage-1 checkpoint where `mma` points.
    """
    corpus = read_corpus(args)
    torch.manual_seed(args.seed)
    model, processor = _around_extractor(args, corpus)
    splits, description = clip_splits(corpus, args, model.mma, processor)
    names = model.config.label_names
    validation = splits["validation"]

    def score(outputs: Tensors, labels: Tensors) -> dict[str, float]:
        chosen = _rows_of_kind(validation, "reaction")
        scores = pearson_scores(outputs["intensities"][chosen], labels["labels"][chosen])
        mean = _mean_where_labels_vary(scores, labels["labels"][chosen])
        return {**dict(zip(names, scores.tolist(), strict=True)), "mean_pearson": mean}

    def finish(model: MMAMRNNetForIntensity, predict: Predict) -> dict:
        outputs, labels = predict(validation)
        before = mrnn_report(outputs["intensities"], labels["labels"], validation, names)
        scale, shift = affine_calibration(outputs["intensities"], labels["labels"])
        model.set_calibration(scale.to(model.device), shift.to(model.device))
        report = {
            "calibration": {"scale": scale, "shift": shift, "fitted_on": "validation"},
            "validation_before_calibration": before,
        }
        for name in [name for name in ("validation", "test") if name in splits]:
            outputs, labels = predict(splits[name])
            report[name] = mrnn_report(outputs["intensities"], labels["labels"], splits[name], names)
        return report

    return Stage(
        name="mrnn",
        model=model,
        processor=processor,
        train=splits["train"],
        validation=validation,
        order=shuffled(len(splits["train"])),
        train_collator=ClipCollator(processor),
        collator=ClipCollator(processor),
        output_names=("intensities",),
        loss_names=("logits",),
        score=score,
        score_name="mean_pearson",
        finish=finish,
        description=description,
        carried_results=sorted(Path(args.mma).glob("results_mma.json")) if Path(args.mma).is_dir() else [],
    )


def _around_extractor(
    args: TrainArguments, corpus: ClipCorpus
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """A new stage-2 model around the stage-1 checkpoint `args.mma`, and its processor."""
    try:
        model = MMAMRNNetForIntensity.from_mma_pretrained(
            args.mma,
            num_frames=args.num_frames,
            sampling_fps=args.sampling_fps,
            hidden_size=args.hidden_size,
            num_hidden_layers=args.num_layers,
            dense_size=args.dense_size,
            dropout=args.dropout,
            intensity_loss=args.intensity_loss,
            id2label=dict(enumerate(corpus.names)),
            label2id={name: number for number, name in enumerate(corpus.names)},
            relative_labels=corpus.relative_labels,
            simulated_labels=corpus.simulated_labels,
        )
        processor = MMAMRNNetVideoProcessor.from_pretrained(args.mma, num_frames=args.num_frames)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"--mma {args.mma}: not a checkpoint that can be loaded: {error}") from error
    model.config.mma_config._name_or_path = ""  # a place on this machine, and config.json travels
    return model, processor


def affine_calibration(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares line of each output, its slope kept positive so that no order is turned round.

    Args:
        prediction: (N, K) outputs before calibration.
        target: (N, K) labels; NaN where unlabelled.

    Returns:
        scale and shift, (K,) float32 each. An output that does not rise with its target gets a slope of 0.001
        around the target's mean; one without labels stays as it is.
    """
    scales, shifts = [], []
    for column in range(target.shape[1]):
        labelled = ~target[:, column].isnan()
        x, y = prediction[labelled, column].double(), target[labelled, column].double()
        if len(x) == 0:
            scales.append(1.0)
            shifts.append(0.0)
            continue
        variance = float(x.var(correction=0))
        slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 0 else 0.0
        scales.append(max(slope, 1e-3))
        shifts.append(float(y.mean()) - scales[-1] * float(x.mean()))
    return torch.tensor(scales), torch.tensor(shifts)


def mrnn_report(intensities: Tensor, labels: Tensor, rows: ClipDataset, names: list[str]) -> dict:
    """Scores of a split: reactions alone as the Hume-shaped split, its clips by length, and what quiet clips get."""
    report: dict = {"clips": len(labels), "reactions": _intensity_scores(intensities, labels, rows, names)}
    lengths = torch.from_numpy(rows.lengths)
    reactions = _rows_of_kind(rows, "reaction")
    report["mean_pearson_by_length"] = {}
    longest = int(lengths.max())
    bins = [(1, 15), (16, 20), (21, 23), (24, 26), (27, 30), *([(31, longest)] if longest > 30 else [])]
    for low, high in bins:
        chosen = reactions & (lengths >= low) & (lengths <= high)
        scores = pearson_scores(intensities[chosen], labels[chosen])
        report["mean_pearson_by_length"][f"{low}-{high}"] = {
            "clips": int(chosen.sum()),
            "mean_pearson": _mean_where_labels_vary(scores, labels[chosen]),
        }
    for kind in sorted(set(rows.kinds) - {"reaction"}):
        chosen = _rows_of_kind(rows, kind)
        report[kind] = {
            "clips": int(chosen.sum()),
            "mean_intensity": dict(zip(names, intensities[chosen].mean(0).tolist(), strict=True)),
        }
    return report


def _intensity_scores(intensities: Tensor, labels: Tensor, rows: ClipDataset, names: list[str]) -> dict:
    chosen = _rows_of_kind(rows, "reaction")
    prediction, target = intensities[chosen], labels[chosen]
    scores = {
        "pearson": pearson_scores(prediction, target),
        "ccc": concordance_scores(prediction, target),
        "mae": mean_absolute_errors(prediction, target),
    }
    return {
        "clips": int(chosen.sum()),
        "mean_pearson": _mean_where_labels_vary(scores["pearson"], target),
        "mean_ccc": _mean_where_labels_vary(scores["ccc"], target),
        "mean_mae": scores["mae"].nanmean(),
        **{name: dict(zip(names, values.tolist(), strict=True)) for name, values in scores.items()},
        "mean_intensity": dict(zip(names, prediction.mean(0).tolist(), strict=True)),
    }


def _rows_of_kind(rows: ClipDataset, kind: str) -> Tensor:
    return torch.tensor([row == kind for row in rows.kinds])
