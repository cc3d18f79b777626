"""Scores of a split's predictions: what chooses the best epoch, what `results.json` reports; tables of predictions."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.metrics import (
    area_under_roc,
    concordance_scores,
    f1_scores,
    macro_f1,
    mean_absolute_errors,
    mean_where_labels_vary,
    pearson_scores,
)
from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    PRESENT_PROBABILITY,
    VALENCE_AROUSAL,
    action_unit_name,
    is_present,
)
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.datasets import ClipDataset, FrameDataset

Tensors = dict[str, Tensor]

# Stage 1 -----------------------------------------------------------------------------------------------------------


def mma_scores(outputs: Tensors, labels: Tensors, intensity: Tensor) -> dict[str, float]:
    """One number a task, and their mean: AU correlation with the intensity labels, expression macro F1, CCC."""
    valence_arousal = labels["valence_arousal_labels"]
    scores = {
        "action_unit_correlation": mean_where_labels_vary(
            pearson_scores(outputs["action_unit_logits"].sigmoid(), intensity), intensity
        ),
        "expression_f1": macro_f1(
            outputs["expression_logits"].argmax(-1), labels["expression_labels"]
        ),
        "valence_arousal_ccc": mean_where_labels_vary(
            concordance_scores(outputs["valence_arousal"], valence_arousal), valence_arousal
        ),
    }
    tasks = torch.tensor(list(scores.values()), dtype=torch.float64)
    return {**scores, "mean_of_tasks": float(tasks.nanmean())}


def mma_report(
    outputs: Tensors, labels: Tensors, rows: FrameDataset, action_units: list[int]
) -> dict:
    """Scores of a split, for all rows and for each source of images.

    Each source has, for each action unit, the correlation with the intensity labels, F1 of presence and the numbers
    of rows that are annotated, of those that are positive and of those that are predicted so; expression macro F1,
    accuracy and confusion; CCC of valence and arousal.
    """
    names = sorted(set(rows.sources))
    number_of = {name: number for number, name in enumerate(names)}
    sources = torch.tensor([number_of[source] for source in rows.sources])
    report = {"all": _mma_report_of(outputs, labels, rows.intensity, action_units)}
    for number, source in enumerate(names):
        chosen = sources == number
        report[source] = _mma_report_of(
            {name: value[chosen] for name, value in outputs.items()},
            {name: value[chosen] for name, value in labels.items()},
            rows.intensity[chosen],
            action_units,
        )
    return report


def _mma_report_of(
    outputs: Tensors, labels: Tensors, intensity: Tensor, action_units: list[int]
) -> dict:
    probability = outputs["action_unit_logits"].sigmoid()
    annotated, present = ~intensity.isnan(), is_present(intensity)
    correlation = pearson_scores(probability, intensity)
    called = probability >= PRESENT_PROBABILITY
    f1 = f1_scores(called, present, annotated)
    expression = labels["expression_labels"]
    labelled = expression != NO_CLASS
    predicted = outputs["expression_logits"].argmax(-1)
    confusion = torch.zeros(len(EXPRESSIONS), len(EXPRESSIONS), dtype=torch.long)
    confusion.index_put_(
        (expression[labelled], predicted[labelled]), torch.tensor(1), accumulate=True
    )
    happiness = outputs["expression_logits"].softmax(-1)[:, EXPRESSIONS.index("happiness")]
    smiles_or_neutral = (expression == EXPRESSIONS.index("happiness")) | (
        expression == EXPRESSIONS.index("neutral")
    )
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
                "predicted": int((called & annotated)[:, column].sum()),
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
            "auc_of_happiness": float(area_under_roc(happiness[smiles_or_neutral], smiling)),
        },
        "valence_arousal_images": int((~labels["valence_arousal_labels"].isnan()).any(-1).sum()),
        "valence_arousal_ccc": dict(zip(VALENCE_AROUSAL, concordance.tolist(), strict=True)),
    }


# Stage 2 -----------------------------------------------------------------------------------------------------------


def mrnn_scores(
    outputs: Tensors, labels: Tensors, rows: ClipDataset, names: list[str]
) -> dict[str, float]:
    """Pearson of each of the K targets over the reactions of a split, and their mean."""
    chosen = rows_of_kind(rows, "reaction")
    scores = pearson_scores(outputs["intensities"][chosen], labels["labels"][chosen])
    mean = mean_where_labels_vary(scores, labels["labels"][chosen])
    return {**dict(zip(names, scores.tolist(), strict=True)), "mean_pearson": mean}


def split_report(
    intensities: Tensor, split: ClipSplit, names: list[str], training_mean: Tensor
) -> dict:
    """Scores of a split: over all its labelled clips, and over those with a face alone.

    A labelled clip without a face, or one that could not be read, counts with the mean training label as its
    prediction (our choice): a submission needs a number for every clip.

    Args:
        intensities: (N, K) of the clips `split.with_face`, or of the first of them.
        split: its clips.
        names: of the K targets.
        training_mean: (K,) from `mean_label`.

    Returns:
        What `mrnn_report` says of the clips with a face, but for real clips `clips` and `reactions` are of all
        labelled ones, `predicted_as_training_mean` counts those without a face, and `reactions_with_face` are the
        others' scores.
    """
    intensities, labels = intensities[: len(split.rows)], split.rows.labels
    report = mrnn_report(intensities, labels, split.rows, names)
    if not split.files:
        return report
    seen = set(split.rows.clip_ids)
    unseen = [
        list(clip.labels.values())
        for clip in split.files
        if clip.is_labelled and clip.clip_id not in seen
    ]
    all_labels = torch.cat([labels, torch.tensor(unseen).reshape(-1, len(names))])
    all_intensities = torch.cat([intensities, training_mean.expand(len(unseen), -1)])
    return {
        **report,
        "clips": len(all_labels),
        "reactions": _intensity_scores(all_intensities, all_labels, names),
        "predicted_as_training_mean": len(unseen),
        "reactions_with_face": report["reactions"],
    }


def mean_label(clips: list[ClipFile]) -> Tensor:
    """(K,) float32 mean of each target over the clips that have it; NaN where none has."""
    return torch.tensor([list(clip.labels.values()) for clip in clips]).nanmean(0)


def write_predictions(
    path: Path, intensities: Tensor, split: ClipSplit, id_column: str, training_mean: Tensor
) -> None:
    """A table of all clips of a split in the corpus's order, under the names that the corpus's own table has.

    The file is written beside its place and renamed.

    Args:
        path: the CSV file.
        intensities: (N, K) of the clips `split.with_face`.
        split: its clips.
        id_column: header of the first column.
        training_mean: (K,) the prediction of clips without a face.
    """
    predicted = dict(zip(split.with_face.clip_ids, intensities.tolist(), strict=True))
    staging = path.with_name(f".{path.name}.tmp")
    with staging.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([id_column, *split.files[0].labels])
        for clip in split.files:
            values = predicted.get(clip.clip_id, training_mean.tolist())
            writer.writerow([clip.listed_as or clip.clip_id, *(f"{value:.6f}" for value in values)])
    staging.replace(path)


LENGTH_BINS = ((1, 3), (4, 7), (8, 15), (16, 20), (21, 23), (24, 26), (27, 30))
"""Shortest and longest clip, in frames, of those that are scored together; still longer ones are one more group."""


def mrnn_report(intensities: Tensor, labels: Tensor, rows: ClipDataset, names: list[str]) -> dict:
    """Scores of a split: reactions alone as the Hume-shaped split, its clips by length, and what quiet clips get."""
    reactions = rows_of_kind(rows, "reaction")
    report: dict = {
        "clips": len(labels),
        "reactions": _intensity_scores(intensities[reactions], labels[reactions], names),
        "mean_pearson_by_length": {},
    }
    lengths = torch.from_numpy(rows.lengths)
    longest = max(lengths.tolist(), default=0)
    for low, high in [*LENGTH_BINS, (LENGTH_BINS[-1][1] + 1, longest)]:
        chosen = reactions & (lengths >= low) & (lengths <= high)
        if not chosen.any():
            continue
        scores = pearson_scores(intensities[chosen], labels[chosen])
        report["mean_pearson_by_length"][f"{low}-{high}"] = {
            "clips": int(chosen.sum()),
            "mean_pearson": mean_where_labels_vary(scores, labels[chosen]),
        }
    for kind in sorted(set(rows.kinds) - {"reaction"}):
        chosen = rows_of_kind(rows, kind)
        report[kind] = {
            "clips": int(chosen.sum()),
            "mean_intensity": dict(zip(names, intensities[chosen].mean(0).tolist(), strict=True)),
        }
    return report


def _intensity_scores(prediction: Tensor, target: Tensor, names: list[str]) -> dict:
    scores = {
        "pearson": pearson_scores(prediction, target),
        "ccc": concordance_scores(prediction, target),
        "mae": mean_absolute_errors(prediction, target),
    }
    return {
        "clips": len(target),
        "mean_pearson": mean_where_labels_vary(scores["pearson"], target),
        "mean_ccc": mean_where_labels_vary(scores["ccc"], target),
        "mean_mae": scores["mae"].nanmean(),
        **{name: dict(zip(names, values.tolist(), strict=True)) for name, values in scores.items()},
        "mean_intensity": dict(zip(names, prediction.mean(0).tolist(), strict=True)),
    }


def rows_of_kind(rows: ClipDataset, kind: str) -> Tensor:
    """(N,) bool, the clips that are reactions, or quiet ones of some kind."""
    return torch.tensor([row == kind for row in rows.kinds], dtype=torch.bool)
