"""Diagnosis of stage 2: findings about scores, labels, outputs and inputs."""

from collections.abc import Mapping

from mma_mrnnet.analysis.findings import (
    ERRORS,
    Findings,
    count_errors_apart,
    join_numbers,
    report_note,
    report_problem,
    standard_error,
)
from mma_mrnnet.results import InputFacts, IntensityScores, LabelFacts, MRNNResults
from mma_mrnnet.training.calibration import LEAST_SLOPE, STEEP_SLOPE

OVERFIT_GAP = 0.15  # in mean Pearson; half of what good models reach on Hume-Reaction
ERRORS_OF_MANY = 3.0  # like ERRORS, for several targets that may each deviate by chance
DEAD = 1e-3  # deviation of logits over clips; intensities then differ by less than .00025
SATURATED = 0.5  # share of intensities at one end ...
SATURATED_BEYOND = 0.25  # ... and how much smaller the share of labels must be
HARDLY_VARIES = 0.98  # share of the labels at one value
FEW_LABELS = 100  # a correlation's standard error is then .1
CONSTANT = 1e-6  # deviation relative to the mean: float32 resolution
NO_DROP = 1e-3  # in mean Pearson, when a channel is exchanged
ALONE = 0.8  # share of the mean Pearson lost by exchanging one channel ...
CARRIES_LENGTH = 0.9  # correlation of an input with the clip length ...
CLIPS_OF_LENGTH = 20  # ... over at least this many clips
THE_OTHERS = 0.2  # ... while no other input takes more than this share
WITHOUT_FACE, MANY_WITHOUT_FACE = 0.1, 0.3  # share of all clips: a note, a problem


# Scores -----------------------------------------------------------------------------------------


def find_nothing_learnt(results: MRNNResults) -> Findings | None:
    """Find a mean correlation that is indistinguishable from 0."""
    scores = results.validation.of_predicted
    mean, count = scores.mean_pearson, scores.clips
    error = standard_error(count)
    if mean is not None and mean > ERRORS * error:
        return []
    shown = "not defined" if mean is None else f"{mean:.3f}"
    numbers: dict[str, float] = {"clips": count, "standard_error": error}
    if mean is not None:
        numbers["mean_pearson"] = mean
    advice = (
        "Check on ten clips by hand that labels belong to them; then try another --learning_rate, "
        "more --epochs."
    )
    if count < FEW_LABELS:
        advice = (
            "Give validation more clips: with so few even a good model could not be told from "
            "chance."
        )
    return report_problem(
        f"nothing learnt that could be shown: mean Pearson {shown} on validation (n = {count:,}, "
        f"standard error {error:.3f})",
        numbers,
        advice,
    )


def find_unlearnt_targets(results: MRNNResults) -> Findings | None:
    """Find targets with a correlation indistinguishable from 0, if others were learnt."""
    if find_nothing_learnt(results):
        return None  # that finding covers all targets
    scores = results.validation.of_predicted
    low, errors = {}, {}
    for name, value in scores.pearson.items():
        facts = _find_labels(results, name)
        error = standard_error(min(facts.labelled, scores.clips) if facts else scores.clips)
        if value is not None and value <= ERRORS * error:
            low[name], errors[f"standard error of {name}"] = value, error
    if not low:
        return []
    what = join_numbers("Pearson not above 0 on validation", low)
    return report_problem(
        f"{what} (n = {scores.clips:,}, standard error {max(errors.values()):.3f})",
        {**low, **errors},
        "Look at these targets' labels: too few, too seldom, or not to be seen in a face; leave "
        "them out if so.",
    )


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
    return report_problem(
        f"overfitting: mean Pearson {ours:.3f} on training clips, {theirs:.3f} on validation "
        f"(n = {train.clips:,} and {validation.clips:,}, {apart:.1f} standard errors apart)",
        {"train": ours, "validation": theirs, "standard_errors_apart": apart},
        "Try --dropout 0.2, --weight_decay 0.1 or a smaller --hidden_size; more clips "
        "of more people "
        "help most.",
    )


def compare_with_test(results: MRNNResults) -> Findings | None:
    """Find validation and test scores that differ by more than sampling error."""
    if results.test is None:
        return None
    one, other = results.validation.of_predicted, results.test.of_predicted
    ours, theirs = _list_correlations(one), _list_correlations(other)
    far = {}
    for name in ours.keys() & theirs.keys():
        apart = count_errors_apart(ours[name], one.clips, theirs[name], other.clips)
        if abs(apart) > (ERRORS if name == "mean" else ERRORS_OF_MANY):
            far[name] = apart
    if not far:
        return []
    far = {name: far[name] for name in ours if name in far}
    what = (
        "validation and test disagree more than sampling explains (standard errors by which it is "
        "higher)"
    )
    means = " and ".join(_show_score(scores.mean_pearson) for scores in (one, other))
    return report_note(
        f"{join_numbers(what, far, '.1f')}; mean Pearson {means} (n = {one.clips:,} and "
        f"{other.clips:,})",
        far,
        "Check that no person is in two splits and that the splits were recorded and "
        "labelled alike.",
    )


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
    found = []
    for name, (value, count) in bins.items():
        others = [pair for other, pair in bins.items() if other != name]
        if not others:
            continue
        rest = sum(number for _, number in others)
        mean = sum(one * number for one, number in others) / rest
        apart = count_errors_apart(mean, rest, value, count)
        if apart <= ERRORS:
            continue
        found += report_note(
            f"clips of {name} frames are predicted worse: mean Pearson {value:.3f} (n = {count:,}) "
            f"against {mean:.3f} (n = {rest:,}) of the others, {apart:.1f} standard errors apart",
            {"mean_pearson": value, "clips": count, "others": mean, "standard_errors_apart": apart},
            "Train on more clips of that length, or tell users for which lengths the "
            "model is meant.",
        )
    return found


# Outputs ----------------------------------------------------------------------------------------


def find_dead_outputs(results: MRNNResults) -> Findings | None:
    """Find outputs that do not vary over clips."""
    if results.facts is None or "validation" not in results.facts.outputs:
        return None
    outputs = results.facts.outputs["validation"]
    deviations = {name: facts.deviation_of_logits for name, facts in outputs.items()}
    dead = {name: value for name, value in deviations.items() if value < DEAD}
    if not dead:
        return []
    return report_problem(
        join_numbers(
            "dead outputs, the same for every clip (deviation of the logits)", dead, ".1g"
        ),
        dead,
        "Try a lower --learning_rate or another --seed; a --dense_size of 32 or more leaves fewer "
        "units all at 0.",
    )


def find_saturated_outputs(results: MRNNResults) -> Findings | None:
    """Find intensities at 0 or 1 far more often than labels."""
    if results.facts is None or "validation" not in results.facts.outputs:
        return None
    full = {}
    for name, facts in results.facts.outputs["validation"].items():
        labels = results.facts.labels["validation"][name]
        ends = {
            "0": (facts.share_at_0, labels.share_at_0 or 0.0),
            "1": (facts.share_at_1, labels.share_at_1 or 0.0),
        }
        for end, (share, wanted) in ends.items():
            if share > SATURATED and share > wanted + SATURATED_BEYOND:
                full[f"{name} at {end}"] = share
    if not full:
        return []
    return report_problem(
        join_numbers("saturated outputs (share of clips)", full, ".0%"),
        full,
        "Try a lower --learning_rate, and check that validation, on which outputs are calibrated, "
        "is like the rest.",
    )


def check_calibration(results: MRNNResults) -> Findings | None:
    """Find a missing calibration, a flattened output, or a slope that amplifies noise."""
    if results.calibration is None:
        return report_problem(
            "not calibrated: the outputs are on scales of their own",
            {},
            "Do not rank targets by these outputs; let the run finish, which calibrates on "
            "validation.",
        )
    scores = results.validation.of_predicted
    slopes = dict(zip(scores.pearson, results.calibration.scale, strict=True))
    flat = {
        name: slope
        for name, slope in slopes.items()
        if slope <= LEAST_SLOPE and not _is_constant(_find_labels(results, name))
    }
    steep = {name: slope for name, slope in slopes.items() if slope >= STEEP_SLOPE}
    found = []
    if flat:
        found += report_problem(
            join_numbers(
                "outputs that do not rise with their labels, calibrated to nearly a "
                "constant (slope)",
                flat,
                ".1g",
            ),
            flat,
            "Treat these targets as not learnt: look at their labels, or leave them out.",
        )
    if steep:
        labelled = [facts.labelled for name in steep if (facts := _find_labels(results, name))]
        fewest = min([*labelled, scores.clips])
        report = report_problem if fewest < FEW_LABELS else report_note
        found += report(
            join_numbers(
                f"steep lines of calibration, fitted on {fewest:,} clips: these outputs "
                "vary far less "
                "than their labels, so that noise is stretched (slope)",
                steep,
                ".1f",
            ),
            {**steep, "clips": fewest},
            "Train longer or with a higher --learning_rate, and give validation more clips; until "
            "then read the intensities of these targets as rough.",
        )
    return found


# Labels -----------------------------------------------------------------------------------------


def find_constant_labels(results: MRNNResults) -> Findings | None:
    """Find labels that are constant for all or nearly all clips."""
    if results.facts is None:
        return None
    found = []
    for split, targets in results.facts.labels.items():
        shares = {name: facts.share_of_the_most_frequent or 0.0 for name, facts in targets.items()}
        never = {name: targets[name].mean or 0.0 for name, share in shares.items() if share == 1}
        hardly = {name: share for name, share in shares.items() if HARDLY_VARIES <= share < 1}
        if never:
            found += report_problem(
                join_numbers(f"labels of {split} that never vary (their value)", never),
                never,
                "Look at this column of the table of labels; a constant teaches nothing, so leave "
                "it out or repair it.",
            )
        if hardly:
            found += report_note(
                join_numbers(
                    f"labels of {split} that hardly vary (share at one value)", hardly, ".1%"
                ),
                hardly,
                "A correlation then hangs on a handful of clips: add clips where this target "
                "differs, or leave it out.",
            )
    return found


def find_few_labels(results: MRNNResults) -> Findings | None:
    """Find targets with few labelled clips in training or validation."""
    if results.facts is None:
        return None
    found = []
    for split in ("train", "validation"):
        labels = results.facts.labels[split]
        few = {n: facts.labelled for n, facts in labels.items() if facts.labelled < FEW_LABELS}
        if few:
            error = standard_error(min(few.values()))
            found += report_note(
                join_numbers(f"few labelled clips in {split}", few, ",d")
                + f" (standard error of a correlation there: {error:.2f})",
                few,
                f"Label more clips of {split}; until then read these targets' scores "
                "as a hint only.",
            )
    return found


def _find_labels(results: MRNNResults, name: str) -> LabelFacts | None:
    return None if results.facts is None else results.facts.labels["validation"].get(name)


def _is_constant(labels: LabelFacts | None) -> bool:
    return labels is not None and labels.share_of_the_most_frequent == 1.0


# Inputs -----------------------------------------------------------------------------------------


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
    found = []
    if constant:
        found += report_problem(
            join_numbers(
                "input channels that never change (deviation over frames)", constant, ".1g"
            ),
            constant,
            "Find out why: an extractor's output that collapsed or was never taught, or an empty "
            "column of a table.",
        )
    idle = {
        name: drop
        for name, drop in _list_drops(inputs).items()
        if name not in constant and abs(drop) < NO_DROP
    }
    if idle:
        found += report_note(
            join_numbers(
                f"{len(idle)} of {len(inputs.channels)} inputs carry nothing that the model uses "
                "(fall of mean Pearson when exchanged among clips)",
                idle,
                ".4f",
            ),
            idle,
            "If you expected one of them to matter, look at its values over a clip; others may say "
            "the same.",
        )
    return found


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
    return report_note(
        f"the model rests on one input: exchanging {name} among clips takes {first:.3f} of a mean "
        f"Pearson of {whole:.3f}, any other at most {second:.3f} (n = {inputs.exchanged_clips:,})",
        {name: first, "mean_pearson": whole, "second": second},
        "Check that this input does not give the label away, and that it is there "
        "wherever the model "
        "will be used.",
    )


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
    if not carriers:
        return []
    return report_problem(
        join_numbers(
            "inputs that carry the clip's length (correlation of their mean with it)",
            carriers,
            ".2f",
        ),
        carriers,
        "Leave them out with --ignore or --features if they count frames or hold a time: a model "
        "that reads them learns how long clips are.",
    )


def _list_drops(inputs: InputFacts) -> Mapping[str, float]:
    """Return the loss of score per exchanged input; empty if the score is not positive."""
    whole, count = inputs.mean_pearson, inputs.exchanged_clips
    if whole is None or count == 0 or whole <= ERRORS * standard_error(count):
        return {}
    drops = {name: facts.drop for name, facts in inputs.channels.items()}
    return {name: drop for name, drop in drops.items() if drop is not None}


# Clips ------------------------------------------------------------------------------------------


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
    report = report_problem if share >= MANY_WITHOUT_FACE else report_note
    return report(
        join_numbers(f"{share:.0%} of the clips could not be used", lost, ",d"),
        {**lost, "share": share},
        "Look at some of them: turned or dark faces, a wrong folder, damaged files; a guess stands "
        "for them in scores.",
    )


CLIP_SIGNATURES = {
    "learnt at all": find_nothing_learnt,
    "every target above 0": find_unlearnt_targets,
    "no overfitting": find_overfitting,
    "validation agrees with test": compare_with_test,
    "all lengths alike": compare_lengths,
    "no dead outputs": find_dead_outputs,
    "no saturated outputs": find_saturated_outputs,
    "calibrated": check_calibration,
    "labels vary": find_constant_labels,
    "labels enough": find_few_labels,
    "inputs carry something": find_idle_inputs,
    "more than one input counts": find_single_input,
    "no input carries the length": find_length_inputs,
    "clips have faces": find_lost_clips,
}
"""Checks of stage 2: what must hold -> the function that finds violations."""
