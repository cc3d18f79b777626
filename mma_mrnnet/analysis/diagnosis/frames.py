"""Signatures of stage 1: what the extractor learnt of action units, expressions, valence and arousal."""

import math

from mma_mrnnet.analysis.diagnosis.findings import (
    ERRORS,
    Finding,
    at,
    listed,
    note,
    problem,
    said,
    standard_error,
)
from mma_mrnnet.model.labels import EXPRESSIONS

FEW_POSITIVE = (
    50  # training images of a unit or an expression; less than one in a batch of 64 of 3,000 images
)
FEW_SCORED = 10  # validation images: an F1 then moves by .1 with every one
FAR_WORSE = 0.2  # in the score of a source, below the others' mean
LEAST_OF_SOURCE = 100  # images, for its score to mean something


def tasks_not_learnt(results: dict) -> list[Finding] | None:
    """Tasks whose scores cannot be told from chance."""
    report = results["validation"]["all"]
    counts = [row["annotated"] for row in report["action_units"].values()]
    annotated = max(counts, default=0)
    of_task = {
        "action_units": {
            "action units' correlation": (
                report["mean_action_unit_correlation"],
                ERRORS * standard_error(annotated),
            )
        },
        "expressions": {"expressions' mean recall": _expression_recall(report)},
        "valence_arousal": {
            f"CCC of {name}": (value, ERRORS * standard_error(report["valence_arousal_images"]))
            for name, value in report["valence_arousal_ccc"].items()
        },
    }
    taught = at(results, "arguments", "channels") or of_task  # older runs taught all
    bars = {name: bar for task in taught for name, bar in of_task[task].items()}
    low = {
        name: (value, bar)
        for name, (value, bar) in bars.items()
        if value is not None and value <= bar
    }
    if not low:
        return []
    parts = [f"{name} {value:.3f} (chance reaches {bar:.3f})" for name, (value, bar) in low.items()]
    return problem(
        f"nothing learnt that could be shown: {listed(parts)}",
        {name: value for name, (value, _) in low.items()},
        "Check on ten images by hand that labels belong to them; then try another --learning_rate and more --epochs.",
    )


def never_predicted(results: dict) -> list[Finding] | None:
    """Units and expressions that validation has and the model never says."""
    report = results["validation"]["all"]
    units = report["action_units"]
    if any("predicted" not in row for row in units.values()):
        return None
    never = {
        name: row["present"]
        for name, row in units.items()
        if row["present"] and not row["predicted"]
    }
    return _never(never, "action units")


def expressions_never_predicted(results: dict) -> list[Finding] | None:
    """Expressions that validation has and the model never says."""
    confusion = results["validation"]["all"]["expression_confusion_rows_are_labels"]
    labelled = {name: sum(row) for name, row in zip(EXPRESSIONS, confusion, strict=True)}
    said_so = {
        name: sum(column)
        for name, column in zip(EXPRESSIONS, zip(*confusion, strict=True), strict=True)
    }
    return _never(
        {name: count for name, count in labelled.items() if count and not said_so[name]},
        "expressions",
    )


def _never(never: dict[str, int], kind: str) -> list[Finding]:
    if not never:
        return []
    return problem(
        said(f"{kind} never predicted on validation (images that have them)", never, ",d"),
        never,
        "Give training more images of them (--balance classes evens out expressions), or more --epochs.",
    )


def few_positive_labels(results: dict) -> list[Finding] | None:
    """Units and expressions that training hardly has."""
    labels = at(results, "facts", "labels", "train")
    if labels is None:
        return None
    counts = {
        name: row["present"] for name, row in labels["action_units"].items() if row["annotated"]
    }
    if any(labels["expressions"].values()):
        counts |= labels["expressions"]
    few = {name: count for name, count in counts.items() if count < FEW_POSITIVE}
    if not few:
        return []
    return note(
        said("hardly any positive label in training (images)", few, ",d"),
        few,
        "Add a corpus that has them, or read these outputs as hints only.",
    )


def scored_on_few(results: dict) -> list[Finding] | None:
    """Units and expressions whose score rests on a handful of validation images."""
    report = results["validation"]["all"]
    counts = {
        name: row["present"] for name, row in report["action_units"].items() if row["annotated"]
    }
    if report["expression_images"]:
        counts |= dict(
            zip(EXPRESSIONS, map(sum, report["expression_confusion_rows_are_labels"]), strict=True)
        )
    few = {name: count for name, count in counts.items() if count < FEW_SCORED}
    if not few:
        return []
    return note(
        said("scored on hardly any positive image of validation", few, ",d"),
        few,
        "Do not read their scores; move images that show them into validation.",
    )


def never_scored(results: dict) -> list[Finding] | None:
    """Tasks and units that no label of validation scores."""
    report = results["validation"]["all"]
    missing = [name for name, row in report["action_units"].items() if not row["annotated"]]
    missing += ["expressions"] if not report["expression_images"] else []
    missing += ["valence and arousal"] if not report["valence_arousal_images"] else []
    if not missing:
        return []
    return note(
        f"without a label in validation: {listed(missing)}; nobody knows how good these outputs are",
        dict.fromkeys(missing, 0),
        "Trust them as far as their training labels go, or add a corpus that annotates them.",
    )


def untaught(results: dict) -> list[Finding] | None:
    """Outputs that nothing taught, or the expressions' prior alone."""
    facts = results.get("facts")
    if facts is None:
        return None
    found = []
    if facts["untrained_outputs"]:
        found += problem(
            f"outputs that nothing in the data taught: {listed(facts['untrained_outputs'])}",
            dict.fromkeys(facts["untrained_outputs"], 0),
            "Add a corpus with such labels, or do not use these outputs: they are as random as at the start.",
        )
    if facts["learnt_from_the_prior_alone"]:
        found += note(
            f"units learnt from the expressions' prior alone: {listed(facts['learnt_from_the_prior_alone'])}",
            dict.fromkeys(facts["learnt_from_the_prior_alone"], 0),
            "They say which expression was seen rather than which muscle moved; add images annotated with them.",
        )
    return found


def sources_far_worse(results: dict) -> list[Finding] | None:
    """A source of images on which the model is far worse than on the others."""
    reports = {name: report for name, report in results["validation"].items() if name != "all"}
    scores = {
        "action units' correlation": lambda report: report["mean_action_unit_correlation"],
        "expressions' macro F1": lambda report: (
            report["expression_macro_f1"] if _expressive(report) else None
        ),
    }
    found = []
    for task, score in scores.items():
        known = {
            name: score(report)
            for name, report in reports.items()
            if report["images"] >= LEAST_OF_SOURCE and score(report) is not None
        }
        for name, value in known.items():
            others = [other for source, other in known.items() if source != name]
            if others and value < sum(others) / len(others) - FAR_WORSE:
                mean, images = sum(others) / len(others), reports[name]["images"]
                found += note(
                    f"{name} is far worse than the other sources: {task} {value:.3f} (n = {images:,}) against "
                    f"{mean:.3f} on average",
                    {"score": value, "others": mean, "images": images},
                    "Look at its crops and labels (another convention?); train on more of it, by --balance corpora.",
                )
    return found


def _expressive(report: dict) -> bool:
    return report["expression_images"] >= LEAST_OF_SOURCE


def _expression_recall(report: dict) -> tuple[float | None, float]:
    """Mean recall over the labelled expressions, which balancing does not lower, and what guessing hardly exceeds."""
    rows = [
        (row[place], sum(row))
        for place, row in enumerate(report["expression_confusion_rows_are_labels"])
    ]
    rows = [(right, count) for right, count in rows if count]
    if not rows:
        return None, 0.0
    chance = 1 / len(rows)
    error = math.sqrt(sum(chance * (1 - chance) / count for _, count in rows)) / len(rows)
    return sum(right / count for right, count in rows) / len(rows), chance + ERRORS * error


SIGNATURES = {
    "every task above chance": tasks_not_learnt,
    "every unit predicted": never_predicted,
    "every expression predicted": expressions_never_predicted,
    "positive labels enough": few_positive_labels,
    "scored on enough": scored_on_few,
    "every output scored": never_scored,
    "every output taught": untaught,
    "sources alike": sources_far_worse,
}
