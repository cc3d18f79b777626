"""Signatures of stage 2: scores, labels, outputs and inputs of a model of clips."""

import math

from mma_mrnnet.analysis.diagnosis.findings import (
    ERRORS,
    Finding,
    at,
    errors_apart,
    note,
    problem,
    said,
    standard_error,
)
from mma_mrnnet.training.calibration import LEAST_SLOPE

OVERFIT_GAP = 0.15  # of mean Pearson; half of what good models reach on Hume-Reaction
ERRORS_OF_MANY = 3.0  # as ERRORS, where each of several targets has its chance to lie off
DEAD = 1e-3  # deviation of logits among clips: intensities then differ by less than .00025
SATURATED = 0.5  # share of intensities at one end ...
SATURATED_BEYOND = 0.25  # ... and by how much the labels' share must be smaller
HARDLY_VARIES = 0.98  # share of the labels at one value
FEW_LABELS = 100  # a correlation's standard error is then .1
CONSTANT = 1e-6  # deviation of an input beside its mean: what float32 can tell
NO_DROP = 1e-3  # of mean Pearson when a channel is exchanged
ALONE = 0.8  # share of the mean Pearson that the exchange of one channel takes ...
THE_OTHERS = 0.2  # ... where that of no other one takes more than this share of it
WITHOUT_FACE, MANY_WITHOUT_FACE = 0.1, 0.3  # share of all clips: worth a note, a problem


def did_not_learn(results: dict) -> list[Finding] | None:
    """The mean correlation cannot be told from 0."""
    scores = _scores(results)
    mean, count = scores["mean_pearson"], scores["clips"]
    error = standard_error(count)
    if mean is not None and mean > ERRORS * error:
        return []
    shown = "not defined" if mean is None else f"{mean:.3f}"
    few = count < FEW_LABELS
    return problem(
        f"nothing learnt that could be shown: mean Pearson {shown} on validation (n = {count:,}, standard error "
        f"{error:.3f})",
        {
            "clips": count,
            "standard_error": error,
            **({} if mean is None else {"mean_pearson": mean}),
        },
        "Give validation more clips: with so few even a good model could not be told from chance."
        if few
        else "Check on ten clips by hand that labels belong to them; then try another --learning_rate, more --epochs.",
    )


def targets_not_above_zero(results: dict) -> list[Finding] | None:
    """Single targets whose correlation cannot be told from 0, in a model that learnt others."""
    scores = _scores(results)
    if did_not_learn(results):
        return None  # said already, of all of them
    low, errors = {}, {}
    for name, value in scores["pearson"].items():
        labelled = _labels(results, "validation", name).get("labelled", scores["clips"])
        error = standard_error(min(labelled, scores["clips"]))
        if value is not None and value <= ERRORS * error:
            low[name], errors[name] = value, error
    if not low:
        return []
    what = said("Pearson not above 0 on validation", low)
    return problem(
        f"{what} (n = {scores['clips']:,}, standard error {max(errors.values()):.3f})",
        {**low, **{f"standard error of {name}": error for name, error in errors.items()}},
        "Look at these targets' labels: too few, too seldom, or not to be seen in a face; leave them out if so.",
    )


def overfitting(results: dict) -> list[Finding] | None:
    """The training clips are predicted far better than those of validation."""
    train, validation = at(results, "facts", "train"), _scores(results)
    if train is None:
        return None
    ours, theirs = train["mean_pearson"], validation["mean_pearson"]
    if ours is None or theirs is None:
        return []
    apart = errors_apart(ours, train["clips"], theirs, validation["clips"])
    if ours - theirs < OVERFIT_GAP or apart < ERRORS:
        return []
    return problem(
        f"overfitting: mean Pearson {ours:.3f} on training clips, {theirs:.3f} on validation (n = {train['clips']:,} "
        f"and {validation['clips']:,}, {apart:.1f} standard errors apart)",
        {"train": ours, "validation": theirs, "standard_errors_apart": apart},
        "Try --dropout 0.2, --weight_decay 0.1 or a smaller --hidden_size; more clips of more people help most.",
    )


def validation_against_test(results: dict) -> list[Finding] | None:
    """Validation and test differ by more than sampling explains."""
    if "test" not in results:
        return None
    one, other = _scores(results), _scores(results, "test")
    pairs = {name: (value, other["pearson"].get(name)) for name, value in one["pearson"].items()}
    apart = {
        name: errors_apart(value, one["clips"], again, other["clips"])
        for name, (value, again) in {
            **pairs,
            "mean": (one["mean_pearson"], other["mean_pearson"]),
        }.items()
        if value is not None and again is not None
    }
    far = {
        name: off
        for name, off in apart.items()
        if abs(off) > (ERRORS if name == "mean" else ERRORS_OF_MANY)
    }
    if not far:
        return []
    what = "validation and test disagree more than sampling explains (standard errors by which it is higher)"
    means = f"mean Pearson {one['mean_pearson']:.3f} and {other['mean_pearson']:.3f}"
    return note(
        f"{said(what, far, '.1f')}; {means} (n = {one['clips']:,} and {other['clips']:,})",
        far,
        "Check that no person is in two splits and that the splits were recorded and labelled alike.",
    )


def short_or_long_clips(results: dict) -> list[Finding] | None:
    """Clips of some length are predicted worse than all others."""
    bins = {
        name: (row["mean_pearson"], row["clips"])
        for name, row in results["validation"]["mean_pearson_by_length"].items()
        if row["mean_pearson"] is not None and row["clips"] > 3
    }
    found = []
    for name, (value, count) in bins.items():
        others = [pair for other, pair in bins.items() if other != name]
        rest = sum(number for _, number in others)
        if not others:
            continue
        mean = sum(one * number for one, number in others) / rest
        apart = errors_apart(mean, rest, value, count)
        if apart > ERRORS:
            found += note(
                f"clips of {name} frames are predicted worse: mean Pearson {value:.3f} (n = {count:,}) against "
                f"{mean:.3f} (n = {rest:,}) of the others, {apart:.1f} standard errors apart",
                {
                    "mean_pearson": value,
                    "clips": count,
                    "others": mean,
                    "standard_errors_apart": apart,
                },
                "Train on more clips of that length, or tell users for which lengths the model is meant.",
            )
    return found


def dead_outputs(results: dict) -> list[Finding] | None:
    """Outputs that do not vary among clips."""
    outputs = at(results, "facts", "outputs", "validation")
    if outputs is None:
        return None
    dead = {
        name: row["deviation_of_logits"]
        for name, row in outputs.items()
        if row["deviation_of_logits"] < DEAD
    }
    if not dead:
        return []
    return problem(
        said("dead outputs, the same for every clip (deviation of the logits)", dead, ".1g"),
        dead,
        "Try a lower --learning_rate or another --seed; a --dense_size of 32 or more leaves fewer units all at 0.",
    )


def saturated_outputs(results: dict) -> list[Finding] | None:
    """Intensities that lie at 0 or 1 far more often than the labels do."""
    outputs, labels = (at(results, "facts", kind, "validation") for kind in ("outputs", "labels"))
    if outputs is None or labels is None:
        return None
    full = {}
    for name, row in outputs.items():
        for end in ("0", "1"):
            share, wanted = row[f"share_at_{end}"], labels[name].get(f"share_at_{end}", 0.0)
            if share > SATURATED and share > wanted + SATURATED_BEYOND:
                full[f"{name} at {end}"] = share
    if not full:
        return []
    return problem(
        said("saturated outputs (share of clips)", full, ".0%"),
        full,
        "Try a lower --learning_rate, and check that validation, on which outputs are calibrated, is like the rest.",
    )


def calibration(results: dict) -> list[Finding] | None:
    """No calibration, or one that had to flatten an output because it does not rise with its label."""
    if "calibration" not in results:
        return problem(
            "not calibrated: the outputs are on scales of their own",
            {},
            "Do not rank targets by these outputs; let the run finish, which calibrates on validation.",
        )
    names = list(_scores(results)["pearson"])
    slopes = dict(zip(names, results["calibration"]["scale"], strict=True))
    flat = {
        name: slope
        for name, slope in slopes.items()
        if slope <= LEAST_SLOPE and not _is_constant(_labels(results, "validation", name))
    }
    if not flat:
        return []
    return problem(
        said(
            "outputs that do not rise with their labels, calibrated to nearly a constant (slope)",
            flat,
            ".1g",
        ),
        flat,
        "Treat these targets as not learnt: look at their labels, or leave them out.",
    )


def labels_that_hardly_vary(results: dict) -> list[Finding] | None:
    """Labels at one value for all clips, or for nearly all."""
    splits = at(results, "facts", "labels")
    if splits is None:
        return None
    found = []
    for split, targets in splits.items():
        shares = {
            name: row["share_of_the_most_frequent"]
            for name, row in targets.items()
            if row.get("share_of_the_most_frequent", 0.0) >= HARDLY_VARIES
        }
        never = {name: share for name, share in shares.items() if _is_constant(targets[name])}
        hardly = {name: share for name, share in shares.items() if name not in never}
        if never:
            values = {name: targets[name]["mean"] for name in never}
            found += problem(
                said(f"labels of {split} that never vary (their value)", values),
                values,
                "Look at this column of the table of labels; a constant teaches nothing, so leave it out or repair it.",
            )
        if hardly:
            found += note(
                said(f"labels of {split} that hardly vary (share at one value)", hardly, ".1%"),
                hardly,
                "A correlation then hangs on a handful of clips: add clips where this target differs, or leave it out.",
            )
    return found


def few_labels(results: dict) -> list[Finding] | None:
    """Targets with few labelled clips in training or validation."""
    splits = at(results, "facts", "labels")
    if splits is None:
        return None
    found = []
    for split in ("train", "validation"):
        counts = {
            name: row["labelled"]
            for name, row in splits[split].items()
            if row["labelled"] < FEW_LABELS
        }
        if counts:
            least = min(counts.values())
            found += note(
                said(f"few labelled clips in {split}", counts, ",d")
                + f" (standard error of a correlation there: {standard_error(least):.2f})",
                counts,
                f"Label more clips of {split}; until then read these targets' scores as a hint only.",
            )
    return found


def inputs_that_carry_nothing(results: dict) -> list[Finding] | None:
    """Input channels that never change, or whose exchange among clips changes no score."""
    inputs = at(results, "facts", "inputs")
    if inputs is None:
        return None
    channels = inputs["channels"]
    constant = {
        name: row["deviation"]
        for name, row in channels.items()
        if row["deviation"] <= CONSTANT * max(1.0, abs(row["mean"]))
    }
    found = []
    if constant:
        found += problem(
            said("input channels that never change (deviation over frames)", constant, ".1g"),
            constant,
            "Find out why: an extractor's output that collapsed or was never taught, or an empty column of a table.",
        )
    if not _exchange_counts(inputs):
        return found
    idle = {
        name: row["drop"]
        for name, row in channels.items()
        if name not in constant and abs(row["drop"]) < NO_DROP
    }
    if idle:
        found += note(
            said(
                f"{len(idle)} of {len(channels)} inputs carry nothing that the model uses (fall of mean Pearson when "
                "exchanged among clips)",
                idle,
                ".4f",
            ),
            idle,
            "Where you expected one of them to matter, look at its values over a clip; others may say the same.",
        )
    return found


def rests_on_one_input(results: dict) -> list[Finding] | None:
    """One channel alone carries the score."""
    inputs = at(results, "facts", "inputs")
    if inputs is None or inputs["exchanged_clips"] == 0:
        return None
    drops = sorted(
        ((row["drop"], name) for name, row in inputs["channels"].items() if row["drop"] is not None)
    )
    if len(drops) < 2 or not _exchange_counts(inputs):
        return []
    (second, _), (first, name) = drops[-2:]
    whole = inputs["mean_pearson"]
    if first < ALONE * whole or second > THE_OTHERS * first:
        return []
    return note(
        f"the model rests on one input: exchanging {name} among clips takes {first:.3f} of a mean Pearson of "
        f"{whole:.3f}, any other at most {second:.3f} (n = {inputs['exchanged_clips']:,})",
        {name: first, "mean_pearson": whole, "second": second},
        "Check that this input does not give the label away, and that it is there wherever the model will be used.",
    )


def clips_without_a_face(results: dict) -> list[Finding] | None:
    """Many clips that could not be used."""
    data = results["data"]
    kinds = ("without_face", "without_usable_rows", "unreadable")
    lost = {kind.replace("_", " "): data[kind] for kind in kinds if kind in data}
    splits = ("train_", "validation_", "test_")
    used = sum(count for name, count in data.items() if name.startswith(splits)) + data.get(
        "unlabelled", 0
    )
    share = sum(lost.values()) / max(used + sum(lost.values()), 1)
    if share < WITHOUT_FACE:
        return []
    speak = problem if share >= MANY_WITHOUT_FACE else note
    return speak(
        said(f"{share:.0%} of the clips could not be used", lost, ",d"),
        {**lost, "share": share},
        "Look at some of them: turned or dark faces, a wrong folder, damaged files; a guess stands for them in scores.",
    )


def _scores(results: dict, split: str = "validation") -> dict:
    """Of the clips that the model itself predicted, those that got the training mean left out."""
    report = results[split]
    return report.get("reactions_with_face", report["reactions"])


def _labels(results: dict, split: str, name: str) -> dict:
    return (at(results, "facts", "labels", split) or {}).get(name, {})


def _is_constant(row: dict) -> bool:
    """Whether labels are known to have one value."""
    return row.get("share_of_the_most_frequent") == 1.0


def _exchange_counts(inputs: dict) -> bool:
    """Whether there is a score that an exchange of inputs could take away."""
    whole = inputs["mean_pearson"]
    return whole is not None and whole > ERRORS / math.sqrt(inputs["exchanged_clips"])


SIGNATURES = {
    "learnt at all": did_not_learn,
    "every target above 0": targets_not_above_zero,
    "no overfitting": overfitting,
    "validation agrees with test": validation_against_test,
    "all lengths alike": short_or_long_clips,
    "no dead outputs": dead_outputs,
    "no saturated outputs": saturated_outputs,
    "calibrated": calibration,
    "labels vary": labels_that_hardly_vary,
    "labels enough": few_labels,
    "inputs carry something": inputs_that_carry_nothing,
    "more than one input counts": rests_on_one_input,
    "clips have faces": clips_without_a_face,
}
