"""Scores of predictions for `results.json`, and tables of predictions."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.files import replaced_file
from mma_mrnnet.metrics import (
    area_under_roc,
    concordance_scores,
    count_confusions,
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
from mma_mrnnet.results import (
    ClipScores,
    FrameScores,
    IntensityScores,
    LengthScores,
    QuietScores,
    SmilingScores,
    UnitScores,
)
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.datasets import ClipDataset, FrameDataset

Tensors = dict[str, Tensor]

# Stage 1 ---------------------------------------------------------------------------------------


def mma_scores(outputs: Tensors, labels: Tensors, intensity: Tensor) -> dict[str, float]:
    """Return correlation of units, macro F1 of expressions, CCC of affect, and their mean."""
    valence_arousal = labels["valence_arousal_labels"]
    correlations = pearson_scores(outputs["action_unit_logits"].sigmoid(), intensity)
    named = outputs["expression_logits"].argmax(-1)
    concordances = concordance_scores(outputs["valence_arousal"], valence_arousal)
    scores = {
        "action_unit_correlation": mean_where_labels_vary(correlations, intensity),
        "expression_f1": macro_f1(named, labels["expression_labels"]),
        "valence_arousal_ccc": mean_where_labels_vary(concordances, valence_arousal),
    }
    tasks = torch.tensor(list(scores.values()), dtype=torch.float64)
    return {**scores, "mean_of_tasks": float(tasks.nanmean())}


def score_frames(
    outputs: Tensors, labels: Tensors, rows: FrameDataset, action_units: list[int]
) -> dict[str, FrameScores]:
    """Return the scores of a split, for `all` rows and by source."""
    scores = {"all": _score_rows(outputs, labels, rows.intensity, action_units)}
    for source in sorted(set(rows.sources)):
        chosen = torch.tensor([name == source for name in rows.sources])
        own_outputs = {name: value[chosen] for name, value in outputs.items()}
        own_labels = {name: value[chosen] for name, value in labels.items()}
        intensity = rows.intensity[chosen]
        scores[source] = _score_rows(own_outputs, own_labels, intensity, action_units)
    return scores


def _score_rows(
    outputs: Tensors, labels: Tensors, intensity: Tensor, action_units: list[int]
) -> FrameScores:
    units = _score_units(outputs["action_unit_logits"].sigmoid(), intensity, action_units)
    expression, named = labels["expression_labels"], outputs["expression_logits"].argmax(-1)
    labelled = expression != NO_CLASS
    valence_arousal = labels["valence_arousal_labels"]
    concordances = concordance_scores(outputs["valence_arousal"], valence_arousal)
    return FrameScores(
        images=len(intensity),
        action_units=units,
        mean_action_unit_correlation=_mean([unit.correlation for unit in units.values()]),
        mean_action_unit_f1=_mean([unit.f1 for unit in units.values()]),
        expression_images=int(labelled.sum()),
        expression_macro_f1=macro_f1(named, expression),
        expression_accuracy=(named == expression)[labelled].double().mean().item(),
        expression_confusion_rows_are_labels=count_confusions(
            named, expression, len(EXPRESSIONS)
        ).tolist(),
        smiling_against_neutral=_score_smiles(outputs["expression_logits"], expression),
        valence_arousal_images=int((~valence_arousal.isnan()).any(-1).sum()),
        valence_arousal_ccc=dict(zip(VALENCE_AROUSAL, concordances.tolist(), strict=True)),
    )


def _score_units(
    probability: Tensor, intensity: Tensor, action_units: list[int]
) -> dict[str, UnitScores]:
    annotated, present = ~intensity.isnan(), is_present(intensity)
    called = (probability >= PRESENT_PROBABILITY) & annotated
    columns = zip(
        pearson_scores(probability, intensity).tolist(),
        f1_scores(called, present, annotated).tolist(),
        annotated.sum(0).tolist(),
        present.sum(0).tolist(),
        called.sum(0).tolist(),
        strict=True,
    )
    names = map(action_unit_name, action_units)
    return {name: UnitScores(*column) for name, column in zip(names, columns, strict=True)}


def _mean(scores: Sequence[float | None]) -> float:
    return torch.tensor(scores, dtype=torch.float64).nanmean().item()


def _score_smiles(expression_logits: Tensor, expression: Tensor) -> SmilingScores:
    happiness, neutral = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")
    chosen = (expression == happiness) | (expression == neutral)
    probability = expression_logits.softmax(-1)[chosen, happiness]
    smiling = expression[chosen] == happiness
    return SmilingScores(
        smiling=int(smiling.sum()),
        neutral=int((~smiling).sum()),
        auc_of_happiness=float(area_under_roc(probability, smiling)),
    )


# Stage 2 ---------------------------------------------------------------------------------------

LENGTH_BINS = ((1, 3), (4, 7), (8, 15), (16, 20), (21, 23), (24, 26), (27, 30))
"""Shortest and longest clip of each length group, in frames; longer clips form one more group."""


def mrnn_scores(
    outputs: Tensors, labels: Tensors, rows: ClipDataset, names: list[str]
) -> dict[str, float]:
    """Return the Pearson correlation of each target over the reactions, and their mean."""
    chosen = rows_of_kind(rows, "reaction")
    target = labels["labels"][chosen]
    scores = pearson_scores(outputs["intensities"][chosen], target)
    mean = mean_where_labels_vary(scores, target)
    return {**dict(zip(names, scores.tolist(), strict=True)), "mean_pearson": mean}


def score_split(
    intensities: Tensor, split: ClipSplit, names: list[str], training_mean: Tensor
) -> ClipScores:
    """Return the scores of all labelled clips, and of those with a face.

    A labelled clip without a face, or an unreadable one, is predicted as `training_mean`,
    (K,), from `mean_label` (our choice), because a submission needs a number for every clip.
    `intensities` are (N, K) for the first N clips of `split.with_face`.
    """
    intensities, labels = intensities[: len(split.rows)], split.rows.labels
    scores = score_clips(intensities, labels, split.rows, names)
    if not split.files:
        return scores
    seen = set(split.rows.clip_ids)
    unseen = [
        list(clip.labels.values())
        for clip in split.files
        if clip.is_labelled and clip.clip_id not in seen
    ]
    all_labels = torch.cat([labels, torch.tensor(unseen).reshape(-1, len(names))])
    all_intensities = torch.cat([intensities, training_mean.expand(len(unseen), -1)])
    scores.clips = len(all_labels)
    scores.predicted_as_training_mean = len(unseen)
    scores.reactions_with_face = scores.reactions
    scores.reactions = _score_intensities(all_intensities, all_labels, names)
    return scores


def score_clips(
    intensities: Tensor, labels: Tensor, rows: ClipDataset, names: list[str]
) -> ClipScores:
    """Return the scores of reactions, also by clip length, and the outputs for quiet clips."""
    reactions = rows_of_kind(rows, "reaction")
    by_length: dict[str, LengthScores] = {}
    lengths = torch.from_numpy(rows.lengths)
    longest = max(lengths.tolist(), default=0)
    for low, high in [*LENGTH_BINS, (LENGTH_BINS[-1][1] + 1, longest)]:
        chosen = reactions & (lengths >= low) & (lengths <= high)
        if chosen.any():
            scores = pearson_scores(intensities[chosen], labels[chosen])
            mean = mean_where_labels_vary(scores, labels[chosen])
            by_length[f"{low}-{high}"] = LengthScores(int(chosen.sum()), mean)
    quiet: dict[str, QuietScores] = {}
    for kind in sorted(set(rows.kinds) - {"reaction"}):
        chosen = rows_of_kind(rows, kind)
        means = dict(zip(names, intensities[chosen].mean(0).tolist(), strict=True))
        quiet[kind] = QuietScores(int(chosen.sum()), means)
    return ClipScores(
        clips=len(labels),
        reactions=_score_intensities(intensities[reactions], labels[reactions], names),
        mean_pearson_by_length=by_length,
        quiet=quiet,
    )


def _score_intensities(prediction: Tensor, target: Tensor, names: list[str]) -> IntensityScores:
    pearson = pearson_scores(prediction, target)
    ccc = concordance_scores(prediction, target)
    mae = mean_absolute_errors(prediction, target)

    def by_name(values: Tensor) -> dict[str, float | None]:
        return dict(zip(names, values.tolist(), strict=True))

    return IntensityScores(
        clips=len(target),
        mean_pearson=mean_where_labels_vary(pearson, target),
        mean_ccc=mean_where_labels_vary(ccc, target),
        mean_mae=mae.nanmean().item(),
        pearson=by_name(pearson),
        ccc=by_name(ccc),
        mae=by_name(mae),
        mean_intensity=by_name(prediction.mean(0)),
    )


def rows_of_kind(rows: ClipDataset, kind: str) -> Tensor:
    """Return (N,) bool: clips of one kind (`reaction`, or a kind of quiet clip)."""
    return torch.tensor([row == kind for row in rows.kinds], dtype=torch.bool)


def mean_label(clips: list[ClipFile]) -> Tensor:
    """Return the (K,) float32 mean label of each target; NaN for a target without labels."""
    return torch.tensor([list(clip.labels.values()) for clip in clips]).nanmean(0)


def write_predictions(
    path: Path, intensities: Tensor, split: ClipSplit, id_column: str, training_mean: Tensor
) -> None:
    """Write a CSV table of all clips of a split, in the order and under the names of the corpus.

    `intensities` are (N, K) for `split.with_face`; other clips get `training_mean`, (K,).
    `id_column` heads the first column.
    """
    predicted = dict(zip(split.with_face.clip_ids, intensities.tolist(), strict=True))
    with replaced_file(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([id_column, *split.files[0].labels])
        for clip in split.files:
            values = predicted.get(clip.clip_id, training_mean.tolist())
            writer.writerow([clip.listed_as or clip.clip_id, *(f"{value:.6f}" for value in values)])
