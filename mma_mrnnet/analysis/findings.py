"""Findings of a diagnosis: what is wrong with a run of either stage, from its results.

A check is a function from results to findings: empty if all is well, None if the run did not
record what the check needs. Thresholds are our choice unless stated otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.results import (
    FrameScores,
    InputFacts,
    IntensityScores,
    LabelFacts,
    MMAResults,
    MRNNResults,
    Results,
)
from mma_mrnnet.training.calibration import LEAST_SLOPE, STEEP_SLOPE

SHOWN = 8  # names per sentence; `numbers` holds all
ERRORS = 2.0  # standard errors; 1 in 20 exceed it by chance
ERRORS_OF_MANY = 3.0  # for several targets that may each deviate by chance

# Course of a run.
LEAST_FALL = 0.01  # of the first epoch's loss; a 1 - r that falls less learnt nothing
STILL_RISING = 0.005  # in score over the last epoch: the effect of a seed with thousands of clips
LEAST_BATCH = 16  # a correlation over fewer items is mostly noise (see --batch_size)
LEAST_STEPS = 10  # per epoch
CORRELATION_LOSSES = ("pearson", "ccc")

# Stage 1.
FEW_POSITIVE = 50  # training images of a unit: under one per batch of 64 with 3,000 images
FEW_SCORED = 10  # validation images: each then changes F1 by .1

# Stage 2.
OVERFIT_GAP = 0.15  # in mean Pearson; half of what good models reach on Hume-Reaction
DEAD = 1e-3  # deviation of logits over clips; intensities then differ by less than .00025
SATURATED = 0.5  # share of intensities at one end ...
SATURATED_BEYOND = 0.25  # ... and how much smaller the share of labels must be
HARDLY_VARIES = 0.98  # share of the labels at one value
FEW_LABELS = 100  # a correlation's standard error is then .1
CONSTANT = 1e-6  # deviation relative to the mean: float32 resolution
NO_DROP = 1e-3  # in mean Pearson, when a channel is exchanged
ALONE, THE_OTHERS = 0.8, 0.2  # share of the score that one input takes, and any other at most
CARRIES_LENGTH = 0.9  # correlation of an input with the clip length ...
CLIPS_OF_LENGTH = 20  # ... over at least this many clips
WITHOUT_FACE, MANY_WITHOUT_FACE = 0.1, 0.3  # share of all clips: a note, a problem

PROBLEM, NOTE = "problem", "note"


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


def list_numbers(
    severity: str, what: str, numbers: Mapping[str, float], advice: str, form: str = ".3f"
) -> Findings:
    """Return one finding that ends with the first names and numbers; none without a number."""
    if not numbers:
        return []
    parts = [f"{name} {value:{form}}" for name, value in numbers.items()]
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return [Finding(severity, f"{what}: {', '.join(parts[:SHOWN])}{more}", numbers, advice)]


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


# The course of a run ----------------------------------------------------------------------------


def find_constant_loss(results: Results) -> Findings | None:
    """Find a training loss that never fell below that of the first epoch."""
    losses = [row.train_loss for row in results.training.history if row.train_loss is not None]
    if len(losses) < 2:
        return None
    first, best = losses[0], min(losses[1:])
    if best <= first - LEAST_FALL * abs(first):
        return []
    what = f"the training loss never fell: {first:.3f} in epoch 1, {best:.3f} at best after it"
    advice = (
        "Try a --learning_rate ten times higher and ten times lower; if neither learns, check that "
        "labels belong to their items."
    )
    return [Finding(PROBLEM, what, {"first": first, "best_after": best}, advice)]


def find_unfinished_rise(results: Results) -> Findings | None:
    """Find a score that still rises by more than chance in the last epoch."""
    scores = [row.score for row in results.training.history if row.score is not None]
    if len(scores) < max(2, len(results.training.history)):
        return None
    gain = scores[-1] - max(scores[:-1])
    if gain < STILL_RISING:
        return []
    what = (
        f"not converged: the last of {len(scores)} epochs is the best and still {gain:.3f} above "
        f"those before it ({scores[-1]:.3f})"
    )
    numbers = {"epochs": len(scores), "last": scores[-1], "gain": gain}
    return [Finding(NOTE, what, numbers, "Train half as many --epochs again, with --patience.")]


def find_small_batches(results: Results) -> Findings | None:
    """Find batches too small for a correlation loss, and too few steps per epoch."""
    settings, items = results.arguments, _count_training_items(results)
    batch = settings["batch_size"] * results.training.processes
    found = []
    correlates = results.stage == "mma" or settings["intensity_loss"] in CORRELATION_LOSSES
    if correlates and batch < LEAST_BATCH:
        what = (
            f"the loss is a correlation over {batch} items a step; below {LEAST_BATCH} it is "
            "mostly noise"
        )
        advice = f"Give --batch_size {LEAST_BATCH} or more; --micro_batch_size saves the memory."
        found.append(Finding(PROBLEM, what, {"batch": batch, "least": LEAST_BATCH}, advice))
    steps = items // batch
    if steps < LEAST_STEPS:
        what = f"few steps: {steps} an epoch ({items} items in batches of {batch})"
        numbers = {"steps_an_epoch": steps, "items": items, "batch": batch}
        found.append(Finding(NOTE, what, numbers, "Give more --epochs or a smaller --batch_size."))
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
    "batches large enough": find_small_batches,
}
"""Checks of a run in either stage: what must hold -> the function that finds violations."""


# Stage 1 ----------------------------------------------------------------------------------------


def find_unlearnt_tasks(results: MMAResults) -> Findings | None:
    """Find tasks with scores indistinguishable from chance."""
    scores = results.validation["all"]
    annotated = max((unit.annotated for unit in scores.action_units.values()), default=0)
    units = scores.mean_action_unit_correlation, ERRORS * standard_error(annotated)
    error = ERRORS * standard_error(scores.valence_arousal_images)
    ccc = {f"CCC of {name}": (one, error) for name, one in scores.valence_arousal_ccc.items()}
    bars: dict[str, dict[str, tuple[float | None, float]]] = {
        "action_units": {"action units' correlation": units},
        "expressions": {"expressions' mean recall": _measure_recall(scores)},
        "valence_arousal": {**ccc},
    }
    taught = results.arguments.get("channels") or bars  # older runs taught all
    low: dict[str, float] = {}
    for task in taught:
        for name, (value, chance) in bars[task].items():
            if value is not None and value <= chance:
                low[f"{name} (chance reaches {chance:.3f})"] = value
    advice = "Check ten labels by hand; then try another --learning_rate and more --epochs."
    return list_numbers(PROBLEM, "nothing learnt that could be shown", low, advice)


def _measure_recall(scores: FrameScores) -> tuple[float | None, float]:
    """Return the mean recall over labelled expressions, and a bar that guessing rarely exceeds."""
    confusion = scores.expression_confusion_rows_are_labels
    rows = [(row[place], sum(row)) for place, row in enumerate(confusion) if sum(row)]
    if not rows:
        return None, 0.0
    chance = 1 / len(rows)
    error = math.sqrt(sum(chance * (1 - chance) / count for _, count in rows)) / len(rows)
    return sum(right / count for right, count in rows) / len(rows), chance + ERRORS * error


def find_silent_outputs(results: MMAResults) -> Findings | None:
    """Find units and expressions that occur in validation but are never predicted."""
    scores = results.validation["all"]
    units, confusion = scores.action_units, scores.expression_confusion_rows_are_labels
    if any(unit.predicted is None for unit in units.values()):
        return None
    never = {name: one.present for name, one in units.items() if one.present and not one.predicted}
    for place, name in enumerate(EXPRESSIONS[: len(confusion)]):
        if sum(confusion[place]) and not sum(row[place] for row in confusion):
            never[name] = sum(confusion[place])
    what = "never predicted on validation (images that have them)"
    advice = "Give training more images of them (--balance classes), or more --epochs."
    return list_numbers(PROBLEM, what, never, advice, ",d")


def find_few_positive_labels(results: MMAResults) -> Findings | None:
    """Find units and expressions that are rare in training."""
    if results.facts is None:
        return None
    labels = results.facts.labels["train"]
    counts = {name: unit.present for name, unit in labels.action_units.items() if unit.annotated}
    if any(labels.expressions.values()):
        counts |= labels.expressions
    few = {name: count for name, count in counts.items() if count < FEW_POSITIVE}
    what = "hardly any positive label in training (images)"
    advice = "Add a corpus that has them, or read these outputs as hints only."
    return list_numbers(NOTE, what, few, advice, ",d")


def find_few_scored(results: MMAResults) -> Findings | None:
    """Find outputs scored on few or no validation images."""
    scores = results.validation["all"]
    units = scores.action_units.items()
    counts = {name: unit.present if unit.annotated else 0 for name, unit in units}
    rows = scores.expression_confusion_rows_are_labels
    if scores.expression_images:
        counts |= dict(zip(EXPRESSIONS, map(sum, rows), strict=True))
    else:
        counts["expressions"] = 0
    counts["valence and arousal"] = scores.valence_arousal_images
    few = {name: count for name, count in counts.items() if count < FEW_SCORED}
    what = "hardly any positive image of validation, or none with a label"
    advice = "Do not read their scores; move images that show them into validation."
    return list_numbers(NOTE, what, few, advice, ",d")


def find_untaught(results: MMAResults) -> Findings | None:
    """Find outputs that nothing taught, or only the expression prior."""
    if results.facts is None:
        return None
    nothing, prior = results.facts.untrained_outputs, results.facts.learnt_from_the_prior_alone
    found = []
    if nothing:
        what = f"outputs that nothing in the data taught: {', '.join(nothing)}"
        advice = "Add a corpus with such labels, or do not use these outputs: they are random."
        found.append(Finding(PROBLEM, what, dict.fromkeys(nothing, 0), advice))
    if prior:
        what = f"units learnt from the expressions' prior alone: {', '.join(prior)}"
        advice = "They repeat the expression; add images annotated with them."
        found.append(Finding(NOTE, what, dict.fromkeys(prior, 0), advice))
    return found


FRAME_SIGNATURES = {
    "every task above chance": find_unlearnt_tasks,
    "every output predicted": find_silent_outputs,
    "positive labels enough": find_few_positive_labels,
    "scored on enough": find_few_scored,
    "every output taught": find_untaught,
}
"""Checks of stage 1."""


# Stage 2: scores --------------------------------------------------------------------------------


def find_unlearnt_targets(results: MRNNResults) -> Findings | None:
    """Find a mean correlation indistinguishable from 0, else such targets."""
    scores = results.validation.of_predicted
    mean, count, error = scores.mean_pearson, scores.clips, standard_error(scores.clips)
    if mean is None or mean <= ERRORS * error:
        what = (
            f"nothing learnt that could be shown: mean Pearson {_show_score(mean)} on validation "
            f"(n = {count:,}, standard error {error:.3f})"
        )
        numbers = {"clips": count, "standard_error": error}
        numbers |= {} if mean is None else {"mean_pearson": mean}
        advice = "Check ten labels by hand; then try another --learning_rate and more --epochs."
        if count < FEW_LABELS:
            advice = "Give validation more clips: so few cannot tell a good model from chance."
        return [Finding(PROBLEM, what, numbers, advice)]
    low = {}
    for name, value in scores.pearson.items():
        facts = _find_labels(results, name)
        error = standard_error(min(facts.labelled, count) if facts else count)
        if value is not None and value <= ERRORS * error:
            low[name] = value
    what = f"Pearson not above 0 on validation (n = {count:,})"
    advice = "Look at these targets' labels: too few, too seldom, or not to be seen in a face."
    return list_numbers(PROBLEM, what, low, advice)


def compare_with_baselines(results: MRNNResults) -> Findings | None:
    """Find a network that a constant, ridge or boosted trees on clip summaries beat."""
    if results.baselines is None:
        return None
    lost = results.lost_to_baseline()
    if lost is None:
        return []
    scored = results.test if lost.split == "test" and results.test else results.validation
    is_clear = lost.score - lost.ours > standard_error(scored.of_predicted.clips)
    what = (
        f"{lost.baseline} on summaries of the clips beats the network on {lost.split}: "
        f"mean Pearson {lost.score:.3f} against {lost.ours:.3f}"
    )
    advice = (
        "Train longer, try --temporal_pooling statistics and another --learning_rate; with a few "
        "hundred clips rather use the simpler model."
    )
    numbers = {lost.baseline: lost.score, "network": lost.ours}
    return [Finding(PROBLEM if is_clear else NOTE, what, numbers, advice)]


def find_overfitting(results: MRNNResults) -> Findings | None:
    """Find training scores far above the validation scores."""
    if results.facts is None or results.facts.train is None:
        return None
    train, validation = results.facts.train, results.validation.of_predicted
    ours, theirs = train.mean_pearson, validation.mean_pearson
    if ours is None or theirs is None:
        return []
    apart = count_errors_apart(ours, train.clips, theirs, validation.clips)
    if ours - theirs < OVERFIT_GAP or apart < ERRORS:
        return []
    what = (
        f"overfitting: mean Pearson {ours:.3f} on training clips, {theirs:.3f} on validation "
        f"(n = {train.clips:,} and {validation.clips:,}, {apart:.1f} standard errors apart)"
    )
    numbers = {"train": ours, "validation": theirs, "standard_errors_apart": apart}
    advice = "Add clips of more people; try --dropout 0.2, --weight_decay 0.1, less --hidden_size."
    return [Finding(PROBLEM, what, numbers, advice)]


def compare_with_test(results: MRNNResults) -> Findings | None:
    """Find validation and test scores that differ by more than sampling error."""
    if results.test is None:
        return None
    one, other = results.validation.of_predicted, results.test.of_predicted
    ours, theirs = _list_correlations(one), _list_correlations(other)
    far = {}
    for name in ours:
        apart = count_errors_apart(ours[name], one.clips, theirs.get(name, ours[name]), other.clips)
        if abs(apart) > (ERRORS if name == "mean" else ERRORS_OF_MANY):
            far[name] = apart
    what = (
        f"validation and test disagree more than sampling explains: mean Pearson "
        f"{_show_score(one.mean_pearson)} and {_show_score(other.mean_pearson)} "
        f"(n = {one.clips:,} and {other.clips:,}); validation is higher by standard errors"
    )
    advice = "Check that no person is in two splits and that all were recorded and labelled alike."
    return list_numbers(NOTE, what, far, advice, ".1f")


def _show_score(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _list_correlations(scores: IntensityScores) -> dict[str, float]:
    values = {**scores.pearson, "mean": scores.mean_pearson}
    return {name: value for name, value in values.items() if value is not None}


def compare_lengths(results: MRNNResults) -> Findings | None:
    """Find clip lengths with scores below all others."""
    bins = {
        name: (row.mean_pearson, row.clips)
        for name, row in results.validation.mean_pearson_by_length.items()
        if row.mean_pearson is not None and row.clips > 3
    }
    low = {}
    for name, (value, count) in bins.items():
        others = [pair for other, pair in bins.items() if other != name]
        rest = sum(number for _, number in others)
        mean = sum(one * number for one, number in others) / max(rest, 1)
        if others and count_errors_apart(mean, rest, value, count) > ERRORS:
            low[f"{name} frames (n = {count:,}, others {mean:.3f})"] = value
    advice = "Train on more clips of that length, or tell users for which lengths the model is."
    return list_numbers(NOTE, "clips that are predicted worse, mean Pearson", low, advice)


# Stage 2: outputs and labels --------------------------------------------------------------------


def find_dead_outputs(results: MRNNResults) -> Findings | None:
    """Find outputs that do not vary over clips, or lie at 0 or 1 far more often than labels."""
    if results.facts is None or "validation" not in results.facts.outputs:
        return None
    dead, full = {}, {}
    for name, facts in results.facts.outputs["validation"].items():
        labels = results.facts.labels["validation"][name]
        if facts.deviation_of_logits < DEAD:
            dead[name] = facts.deviation_of_logits
        ends = (facts.share_at_0, labels.share_at_0), (facts.share_at_1, labels.share_at_1)
        for end, (share, wanted) in enumerate(ends):
            if share > SATURATED and share > (wanted or 0.0) + SATURATED_BEYOND:
                full[f"{name} at {end}"] = share
    what = "dead outputs, the same for every clip (deviation of the logits)"
    advice = "Try a lower --learning_rate or another --seed; a --dense_size of 32 or more."
    found = list_numbers(PROBLEM, what, dead, advice, ".1g")
    advice = "Try a lower --learning_rate, and check that validation is like the rest."
    return found + list_numbers(PROBLEM, "saturated outputs (share of clips)", full, advice, ".0%")


def check_calibration(results: MRNNResults) -> Findings | None:
    """Find a missing calibration, a flattened output, or a slope that amplifies noise."""
    if results.calibration is None:
        what = "not calibrated: the outputs are on scales of their own"
        advice = "Do not rank targets by these outputs; let the run finish, which calibrates."
        return [Finding(PROBLEM, what, {}, advice)]
    scores = results.validation.of_predicted
    slopes = dict(zip(scores.pearson, results.calibration.scale, strict=True))
    labels = {name: facts for name in slopes if (facts := _find_labels(results, name))}
    constant = {name for name, one in labels.items() if one.share_of_the_most_frequent == 1.0}
    flat = {n: slope for n, slope in slopes.items() if slope <= LEAST_SLOPE and n not in constant}
    steep = {name: slope for name, slope in slopes.items() if slope >= STEEP_SLOPE}
    fewest = min([*(labels[name].labelled for name in steep if name in labels), scores.clips])
    what = "outputs that do not rise with their labels, calibrated to nearly a constant (slope)"
    advice = "Treat these targets as not learnt: look at their labels, or leave them out."
    found = list_numbers(PROBLEM, what, flat, advice, ".1g")
    what = (
        f"steep lines of calibration, fitted on {fewest:,} clips: these outputs vary far less "
        "than their labels, so that noise is stretched (slope)"
    )
    advice = "Train longer or with a higher --learning_rate, and give validation more clips."
    severity = PROBLEM if fewest < FEW_LABELS else NOTE
    return found + list_numbers(severity, what, steep, advice, ".1f")


def find_constant_labels(results: MRNNResults) -> Findings | None:
    """Find labels that are constant for all or nearly all clips."""
    if results.facts is None:
        return None
    found = []
    for split, targets in results.facts.labels.items():
        shares = {name: facts.share_of_the_most_frequent or 0.0 for name, facts in targets.items()}
        never = {name: targets[name].mean or 0.0 for name, share in shares.items() if share == 1}
        hardly = {name: share for name, share in shares.items() if HARDLY_VARIES <= share < 1}
        what, advice = f"labels of {split} that", "Leave these targets out, or repair their labels."
        found += list_numbers(PROBLEM, f"{what} never vary (their value)", never, advice)
        advice = "A correlation hangs on a handful of clips: add clips where this target differs."
        what = f"{what} hardly vary (share at one value)"
        found += list_numbers(NOTE, what, hardly, advice, ".1%")
    return found


def find_few_labels(results: MRNNResults) -> Findings | None:
    """Find targets with few labelled clips in training or validation."""
    if results.facts is None:
        return None
    found = []
    for split in ("train", "validation"):
        labels = results.facts.labels[split]
        few = {n: facts.labelled for n, facts in labels.items() if facts.labelled < FEW_LABELS}
        error = standard_error(min(few.values(), default=0))
        what = f"few labelled clips in {split} (standard error of a correlation {error:.2f})"
        advice = f"Label more clips of {split}; until then read these scores as a hint only."
        found += list_numbers(NOTE, what, few, advice, ",d")
    return found


def _find_labels(results: MRNNResults, name: str) -> LabelFacts | None:
    return None if results.facts is None else results.facts.labels["validation"].get(name)


# Stage 2: inputs and clips ----------------------------------------------------------------------


def find_idle_inputs(results: MRNNResults) -> Findings | None:
    """Find inputs that are constant or have no effect on the score."""
    if results.facts is None or results.facts.inputs is None:
        return None
    inputs = results.facts.inputs
    constant = {
        name: facts.deviation
        for name, facts in inputs.channels.items()
        if facts.deviation <= CONSTANT * max(1.0, abs(facts.mean))
    }
    drops = _list_drops(inputs).items()
    idle = {name: drop for name, drop in drops if name not in constant and abs(drop) < NO_DROP}
    what = "input channels that never change (deviation over frames)"
    advice = "Find out why: an output that was never taught, or an empty column of a table."
    found = list_numbers(PROBLEM, what, constant, advice, ".1g")
    what = (
        f"{len(idle)} of {len(inputs.channels)} inputs carry nothing that the model uses "
        "(fall of mean Pearson when exchanged among clips)"
    )
    advice = "If you expected one of them to matter, look at its values over a clip."
    return found + list_numbers(NOTE, what, idle, advice, ".4f")


def find_single_input(results: MRNNResults) -> Findings | None:
    """Find an input that alone determines the score."""
    inputs = None if results.facts is None else results.facts.inputs
    if inputs is None or inputs.exchanged_clips == 0:
        return None
    drops = sorted((drop, name) for name, drop in _list_drops(inputs).items())
    whole = inputs.mean_pearson
    if len(drops) < 2 or whole is None:
        return []
    (second, _), (first, name) = drops[-2:]
    if first < ALONE * whole or second > THE_OTHERS * first:
        return []
    what = (
        f"the model rests on one input: exchanging {name} among clips takes {first:.3f} of a mean "
        f"Pearson of {whole:.3f}, any other at most {second:.3f} (n = {inputs.exchanged_clips:,})"
    )
    advice = "Check that it does not give the label away, and is there wherever you predict."
    numbers = {name: first, "mean_pearson": whole, "second": second}
    return [Finding(NOTE, what, numbers, advice)]


def find_length_inputs(results: MRNNResults) -> Findings | None:
    """Find inputs that encode the clip length: counters, times, durations."""
    inputs = None if results.facts is None else results.facts.inputs
    if inputs is None or inputs.clips < CLIPS_OF_LENGTH:
        return None
    values = {name: facts.length_correlation for name, facts in inputs.channels.items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None  # not recorded, or all clips have the same length
    carriers = {name: value for name, value in known.items() if abs(value) >= CARRIES_LENGTH}
    what = "inputs that carry the clip's length (correlation of their mean with it)"
    advice = "Leave counters and times out with --ignore or --features: they teach only length."
    return list_numbers(PROBLEM, what, carriers, advice, ".2f")


def _list_drops(inputs: InputFacts) -> Mapping[str, float]:
    """Return the loss of score per exchanged input; empty if the score is not positive."""
    whole, count = inputs.mean_pearson, inputs.exchanged_clips
    if whole is None or count == 0 or whole <= ERRORS * standard_error(count):
        return {}
    drops = {name: facts.drop for name, facts in inputs.channels.items()}
    return {name: drop for name, drop in drops.items() if drop is not None}


def find_lost_clips(results: MRNNResults) -> Findings | None:
    """Find corpora in which many clips were unusable."""
    data = results.data
    counts = {
        "without face": data.without_face,
        "without usable rows": data.without_usable_rows,
        "unreadable": data.unreadable,
    }
    lost = {kind: count for kind, count in counts.items() if count is not None}
    used = sum(data.clips.values()) + (data.unlabelled or 0)
    share = sum(lost.values()) / max(used + sum(lost.values()), 1)
    if share < WITHOUT_FACE:
        return []
    severity = PROBLEM if share >= MANY_WITHOUT_FACE else NOTE
    what = f"{share:.0%} of the clips could not be used"
    advice = "Look at some: turned or dark faces, a wrong folder; a guess stands for them."
    return list_numbers(severity, what, lost, advice, ",d")


CLIP_SIGNATURES = {
    "every target above 0": find_unlearnt_targets,
    "better than baselines": compare_with_baselines,
    "no overfitting": find_overfitting,
    "validation agrees with test": compare_with_test,
    "all lengths alike": compare_lengths,
    "outputs vary": find_dead_outputs,
    "calibrated": check_calibration,
    "labels vary": find_constant_labels,
    "labels enough": find_few_labels,
    "inputs carry something": find_idle_inputs,
    "more than one input counts": find_single_input,
    "no input carries the length": find_length_inputs,
    "clips have faces": find_lost_clips,
}
"""Checks of stage 2."""
