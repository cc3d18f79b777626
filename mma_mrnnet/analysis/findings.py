"""Findings of a diagnosis: problems of a run in either stage, and in stage 1.

A check is a function from results to findings: empty if all is well, None if the run did not
record what the check needs. Thresholds are our choice unless stated otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.results import FrameScores, MMAResults, Results

SHOWN = 8  # names per sentence; `numbers` holds all
ERRORS = 2.0  # standard errors; 1 in 20 exceed it by chance

# Course of a run.
LEAST_FALL = 0.01  # of the first epoch's loss; a 1 - r that falls less learnt nothing
STILL_RISING = 0.005  # in score over the last epoch: the effect of a seed with thousands of clips
FALLEN = 0.02  # in score after the best epoch: above chance with thousands of clips
LEAST_BATCH = 16  # a correlation over fewer items is mostly noise (see --batch_size)
LEAST_STEPS = 10  # per epoch
CORRELATION_LOSSES = ("pearson", "ccc")

# Stage 1.
FEW_POSITIVE = 50  # training images of a unit: under one per batch of 64 with 3,000 images
FEW_SCORED = 10  # validation images: each then changes F1 by .1
FAR_WORSE = 0.2  # below the mean score of the other sources
LEAST_OF_SOURCE = 100  # images needed to score a source


@dataclass(frozen=True)
class Finding:
    """One finding: a sentence with its numbers, and one sentence of advice.

    `severity` is `problem` (solve it before using the model) or `note`; `numbers` holds all by
    name.
    """

    severity: str
    what: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""


Findings = list[Finding]


def report_problem(what: str, numbers: Mapping[str, float], advice: str) -> Findings:
    """Return one problem."""
    return [Finding("problem", what, numbers, advice)]


def report_note(what: str, numbers: Mapping[str, float], advice: str) -> Findings:
    """Return one note."""
    return [Finding("note", what, numbers, advice)]


def standard_error(count: int) -> float:
    """Return the standard error of a correlation whose true value is 0: 1 / sqrt(n)."""
    return 1 / math.sqrt(max(count, 1))


def count_errors_apart(one: float, count: int, other: float, other_count: int) -> float:
    """Return how many standard errors the first correlation is higher (Fisher's z).

    A mean over targets varies less than one correlation, so for means the result is too small.
    Returns 0 with fewer than 4 clips.
    """
    if count <= 3 or other_count <= 3:
        return 0.0
    limit = 0.999_999  # z of 1 is infinite
    first, second = (math.atanh(max(-limit, min(limit, value))) for value in (one, other))
    return (first - second) / math.sqrt(1 / (count - 3) + 1 / (other_count - 3))


def join_names(parts: Sequence[str]) -> str:
    """Join the first `SHOWN` parts with commas."""
    more = len(parts) - SHOWN
    return ", ".join(parts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def join_numbers(what: str, numbers: Mapping[str, float], form: str = ".3f") -> str:
    """Return `what`, then each name with its number."""
    return f"{what}: {join_names([f'{name} {value:{form}}' for name, value in numbers.items()])}"


# The course of a run ----------------------------------------------------------------------------


def find_constant_loss(results: Results) -> Findings | None:
    """Find a training loss that never fell below that of the first epoch."""
    losses = [row.train_loss for row in results.training.history if row.train_loss is not None]
    if len(losses) < 2:
        return None
    if min(losses[1:]) <= losses[0] - LEAST_FALL * abs(losses[0]):
        return []
    best = min(losses[1:])
    return report_problem(
        f"the training loss never fell: {losses[0]:.3f} in epoch 1, {best:.3f} at best after it",
        {"first": losses[0], "best_after": best},
        "Try a --learning_rate ten times higher and ten times lower; if neither learns, check that "
        "labels belong to their items.",
    )


def _list_scores(results: Results) -> list[float] | None:
    """Return the score of each epoch; None if one is undefined or there are fewer than two."""
    scores = [row.score for row in results.training.history if row.score is not None]
    return scores if 2 <= len(scores) == len(results.training.history) else None


def find_unfinished_rise(results: Results) -> Findings | None:
    """Find a score that still rises by more than chance in the last epoch."""
    scores = _list_scores(results)
    if scores is None:
        return None
    gain = scores[-1] - max(scores[:-1])
    if gain < STILL_RISING:
        return []
    return report_note(
        f"not converged: the last of {len(scores)} epochs is the best and still {gain:.3f} above "
        f"those before it ({scores[-1]:.3f})",
        {"epochs": len(scores), "last": scores[-1], "gain": gain},
        "Train longer: half as many --epochs again, with --patience to stop in time.",
    )


def find_early_peak(results: Results) -> Findings | None:
    """Find a validation score that peaked in the first half of the epochs and then fell."""
    scores, best = _list_scores(results), results.training.best_epoch
    if scores is None:
        return None
    last = sum(scores[-2:]) / 2
    if len(scores) < 4 or best > len(scores) / 2 or scores[best - 1] - last < FALLEN:
        return []
    return report_note(
        f"the validation score peaked in epoch {best} of {len(scores)} "
        f"({scores[best - 1]:.3f}) and fell to {last:.3f}",
        {"best_epoch": best, "epochs": len(scores), "best": scores[best - 1], "last_two": last},
        "The best epoch was kept; a lower --learning_rate, --dropout or --weight_decay may find a "
        "better one.",
    )


def find_small_batches(results: Results) -> Findings | None:
    """Find batches too small for a correlation loss, and too few steps per epoch."""
    settings, items = results.arguments, _count_training_items(results)
    batch = settings["batch_size"] * results.training.processes
    found = []
    correlates = results.stage == "mma" or settings["intensity_loss"] in CORRELATION_LOSSES
    if correlates and batch < LEAST_BATCH:
        found += report_problem(
            f"the loss is a correlation over {batch} items a step; below "
            f"{LEAST_BATCH} it is mostly "
            "noise",
            {"batch": batch, "least": LEAST_BATCH},
            f"Give --batch_size {LEAST_BATCH} or more; --micro_batch_size saves the memory.",
        )
    steps = items // batch
    if steps < LEAST_STEPS:
        found += report_note(
            f"few steps: {steps} an epoch ({items} items in batches of {batch})",
            {"steps_an_epoch": steps, "items": items, "batch": batch},
            "Give more --epochs or a smaller --batch_size, and judge by steps, not by epochs.",
        )
    return found


def _count_training_items(results: Results) -> int:
    if isinstance(results, MMAResults):
        drawn = results.data.items_an_epoch.values()
        return sum(corpus["images"] for corpus in drawn) if drawn else results.data.train
    counts = results.data.clips.items()
    return sum(count for name, count in counts if name.startswith("train_"))


RUN_SIGNATURES = {
    "the loss fell": find_constant_loss,
    "converged": find_unfinished_rise,
    "no early peak": find_early_peak,
    "batches large enough": find_small_batches,
}
"""Checks of a run in either stage: what must hold -> the function that finds violations."""


# Stage 1 ----------------------------------------------------------------------------------------


def find_unlearnt_tasks(results: MMAResults) -> Findings | None:
    """Find tasks with scores indistinguishable from chance."""
    scores = results.validation["all"]
    annotated = max((unit.annotated for unit in scores.action_units.values()), default=0)
    recall = "expressions' mean recall"
    bars: dict[str, dict[str, tuple[float | None, float]]] = {
        "action_units": {
            "action units' correlation": (
                scores.mean_action_unit_correlation,
                ERRORS * standard_error(annotated),
            )
        },
        "expressions": {recall: _measure_recall(scores)},
        "valence_arousal": {
            f"CCC of {name}": (value, ERRORS * standard_error(scores.valence_arousal_images))
            for name, value in scores.valence_arousal_ccc.items()
        },
    }
    taught = results.arguments.get("channels") or bars  # older runs taught all
    low = {
        name: (value, chance)
        for task in taught
        for name, (value, chance) in bars[task].items()
        if value is not None and value <= chance
    }
    if not low:
        return []
    parts = [
        f"{name} {value:.3f} (chance reaches {chance:.3f})" for name, (value, chance) in low.items()
    ]
    return report_problem(
        f"nothing learnt that could be shown: {join_names(parts)}",
        {name: value for name, (value, _) in low.items()},
        "Check on ten images by hand that labels belong to them; then try another --learning_rate "
        "and more --epochs.",
    )


def _measure_recall(scores: FrameScores) -> tuple[float | None, float]:
    """Return the mean recall over labelled expressions, and a bar that guessing rarely exceeds."""
    confusion = scores.expression_confusion_rows_are_labels
    rows = [(row[place], sum(row)) for place, row in enumerate(confusion) if sum(row)]
    if not rows:
        return None, 0.0
    chance = 1 / len(rows)
    error = math.sqrt(sum(chance * (1 - chance) / count for _, count in rows)) / len(rows)
    return sum(right / count for right, count in rows) / len(rows), chance + ERRORS * error


def find_silent_units(results: MMAResults) -> Findings | None:
    """Find units that occur in validation but are never predicted."""
    units = results.validation["all"].action_units
    if any(unit.predicted is None for unit in units.values()):
        return None
    never = {
        name: unit.present for name, unit in units.items() if unit.present and not unit.predicted
    }
    return _report_silent(never, "action units")


def find_silent_expressions(results: MMAResults) -> Findings | None:
    """Find expressions that occur in validation but are never predicted."""
    confusion = results.validation["all"].expression_confusion_rows_are_labels
    never = {
        name: sum(row)
        for name, row, column in zip(
            EXPRESSIONS, confusion, zip(*confusion, strict=True), strict=True
        )
        if sum(row) and not sum(column)
    }
    return _report_silent(never, "expressions")


def _report_silent(never: Mapping[str, int], kind: str) -> Findings:
    if not never:
        return []
    return report_problem(
        join_numbers(f"{kind} never predicted on validation (images that have them)", never, ",d"),
        never,
        "Give training more images of them (--balance classes evens out expressions), or more "
        "--epochs.",
    )


def find_few_positive_labels(results: MMAResults) -> Findings | None:
    """Find units and expressions that are rare in training."""
    if results.facts is None:
        return None
    labels = results.facts.labels["train"]
    counts = {name: unit.present for name, unit in labels.action_units.items() if unit.annotated}
    if any(labels.expressions.values()):
        counts |= labels.expressions
    few = {name: count for name, count in counts.items() if count < FEW_POSITIVE}
    if not few:
        return []
    return report_note(
        join_numbers("hardly any positive label in training (images)", few, ",d"),
        few,
        "Add a corpus that has them, or read these outputs as hints only.",
    )


def find_few_scored(results: MMAResults) -> Findings | None:
    """Find units and expressions scored on only a few validation images."""
    scores = results.validation["all"]
    counts = {name: unit.present for name, unit in scores.action_units.items() if unit.annotated}
    if scores.expression_images:
        rows = scores.expression_confusion_rows_are_labels
        counts |= dict(zip(EXPRESSIONS, map(sum, rows), strict=True))
    few = {name: count for name, count in counts.items() if count < FEW_SCORED}
    if not few:
        return []
    return report_note(
        join_numbers("scored on hardly any positive image of validation", few, ",d"),
        few,
        "Do not read their scores; move images that show them into validation.",
    )


def find_unscored(results: MMAResults) -> Findings | None:
    """Find tasks and units without validation labels."""
    scores = results.validation["all"]
    missing = [name for name, unit in scores.action_units.items() if not unit.annotated]
    missing += ["expressions"] if not scores.expression_images else []
    missing += ["valence and arousal"] if not scores.valence_arousal_images else []
    if not missing:
        return []
    return report_note(
        f"without a label in validation: {join_names(missing)}; nobody knows how good "
        "these outputs "
        "are",
        dict.fromkeys(missing, 0),
        "Trust them as far as their training labels go, or add a corpus that annotates them.",
    )


def find_untaught(results: MMAResults) -> Findings | None:
    """Find outputs that nothing taught, or only the expression prior."""
    facts = results.facts
    if facts is None:
        return None
    found = []
    if facts.untrained_outputs:
        found += report_problem(
            f"outputs that nothing in the data taught: {join_names(facts.untrained_outputs)}",
            dict.fromkeys(facts.untrained_outputs, 0),
            "Add a corpus with such labels, or do not use these outputs: they are as random as at "
            "the start.",
        )
    prior = facts.learnt_from_the_prior_alone
    if prior:
        found += report_note(
            f"units learnt from the expressions' prior alone: {join_names(prior)}",
            dict.fromkeys(prior, 0),
            "They say which expression was seen rather than which muscle moved; add images "
            "annotated with them.",
        )
    return found


def find_worse_sources(results: MMAResults) -> Findings | None:
    """Find a source with scores far below the other sources."""
    reports = {
        name: scores
        for name, scores in results.validation.items()
        if name != "all" and scores.images >= LEAST_OF_SOURCE
    }
    correlations = {name: one.mean_action_unit_correlation for name, one in reports.items()}
    macro_f1 = {
        name: one.expression_macro_f1
        for name, one in reports.items()
        if one.expression_images >= LEAST_OF_SOURCE
    }
    found = []
    tasks = {"action units' correlation": correlations, "expressions' macro F1": macro_f1}
    for task, scores in tasks.items():
        known = {name: value for name, value in scores.items() if value is not None}
        for name, value in known.items():
            others = [other for source, other in known.items() if source != name]
            if not others or value >= sum(others) / len(others) - FAR_WORSE:
                continue
            mean, images = sum(others) / len(others), reports[name].images
            found += report_note(
                f"{name} is far worse than the other sources: {task} {value:.3f} (n = {images:,}) "
                f"against {mean:.3f} on average",
                {"score": value, "others": mean, "images": images},
                "Look at its crops and labels (another convention?); train on more of it, by "
                "--balance corpora.",
            )
    return found


FRAME_SIGNATURES = {
    "every task above chance": find_unlearnt_tasks,
    "every unit predicted": find_silent_units,
    "every expression predicted": find_silent_expressions,
    "positive labels enough": find_few_positive_labels,
    "scored on enough": find_few_scored,
    "every output scored": find_unscored,
    "every output taught": find_untaught,
    "sources alike": find_worse_sources,
}
"""Checks of stage 1."""
