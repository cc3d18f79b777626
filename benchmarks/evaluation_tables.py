"""Tables of the shipped checkpoint's scores, of the real clips and of the ablations, as Markdown.

`fill_readme.py` puts them into the pages.
"""

import json
from pathlib import Path

from mma_mrnnet.analysis.study_page import format_difference
from mma_mrnnet.analysis.study_summary import StudySummary, VariantRow

STILL_LIMIT = 0.05  # aim for the standard deviation of AU12 on a still face


def load(path: Path) -> dict:
    """Read a result file."""
    return json.loads(path.read_text("utf-8"))


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; a dash if it was not measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(measured: dict | None, digits: int = 2) -> str:
    """Format a score with its interval, as in `0.87 [0.86, 0.88]`."""
    if measured is None or measured["low"] is None:
        return number(measured and measured["value"], digits)
    low, high = number(measured["low"], digits), number(measured["high"], digits)
    return f"{number(measured['value'], digits)} [{low}, {high}]"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Make a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def paragraphs(*parts: str) -> str:
    """Join paragraphs and tables by empty lines."""
    return "\n\n".join(parts)


# Stage 1 ------------------------------------------------------------------------------------------


def macro_f1(row: dict) -> dict | None:
    """Return macro F1 with its interval; None if fewer than two expressions are labelled."""
    classes = sum(any(counts) for counts in row["expression"]["confusion"])
    return row["expression"]["macro_f1"] if classes > 1 else None


def smile_accuracy(row: dict) -> dict:
    """Return the balanced accuracy of smiling against neutral."""
    return row["smiling_against_neutral"]["balanced_accuracy"]


SCORES = {
    "mean AU correlation": (lambda row: row["mean_action_unit_correlation"], 2),
    "of AU4, 7, 12, 25": (lambda row: row["mean_correlation_of_common_units"], 2),
    "expression macro F1": (macro_f1, 2),
    "smiling or neutral, balanced accuracy": (smile_accuracy, 3),
}
"""The scores of a source that the pages show, and their number of digits."""

IMAGES = {
    "congress": "official portraits",
    "warp": "bent photos",
    "render": "renders",
}
"""The sources that the README shows."""


def readme_rows(evaluation: dict) -> list[list[str]]:
    """Return the README's rows of stage 1."""
    rows = []
    for source, images in IMAGES.items():
        row = evaluation["sources"][source]
        what, value = "mean correlation of AUs", interval(row["mean_action_unit_correlation"])
        if macro_f1(row) is not None:
            what += "; macro F1 of expressions"
            value += f"; {interval(macro_f1(row))}"
        rows.append([f"{row['images']} {images} of {row['people']} people", what, value])
    return rows


def scores_before(evaluation: dict) -> dict[str, dict]:
    """Return the sources' scores of the checkpoint that was shipped before."""
    return evaluation["against"]["sources"] if evaluation["against"] else {}


def evaluation_part(evaluation: dict) -> str:
    """Show the extractor by source of images, beside the one before if they were compared."""
    before = scores_before(evaluation)
    rows = []
    for source, row in evaluation["sources"].items():
        cells = [source, f"{row['images']} ({row['people']})"]
        for score, digits in SCORES.values():
            now = interval(score(row), digits)
            first = score(before[source]) if source in before and now != "–" else None
            cells.append(now if first is None else f"{number(first['value'], digits)} → {now}")
        rows.append(cells)
    compared = (
        "; the checkpoint shipped before → this one, on the same images and labels"
        if before
        else ""
    )
    return paragraphs(
        "Validation images of people in no training image, with 95 % intervals over people"
        f"{compared}. Validation also chose the best epoch and the calibration. "
        "A dash: nothing, or one expression alone, is labelled.",
        table(["images", "count (people)", *SCORES], rows),
        model_cost(evaluation),
        scores_note(evaluation),
        "Changed copies of the crops: the twelve units that a landmark model answers. Jitter is the "
        "root mean square change of the output under a shift of a pixel, noise and JPEG.",
        steadiness_table(evaluation),
    )


def steadiness_table(evaluation: dict) -> str:
    """Show how steady the action units are on changed copies of the crops."""
    before = scores_before(evaluation)
    rows = []
    for source, row in evaluation["sources"].items():
        pairs = [describe_steadiness(before.get(source)), describe_steadiness(row)]
        moves = [" → ".join(pair) if pair[0] else pair[1] for pair in zip(*pairs, strict=True)]
        rows.append([source, *moves])
    heads = ["mean r, 12 units", "averaged with the mirrored crop", "a third of the light"]
    heads += ["agreement with the mirrored crop", "jitter of AU12"]
    return table(["images", *heads], rows)


def describe_steadiness(row: dict | None) -> list[str]:
    """Return the cells of a source in `steadiness_table`; empty texts without a measurement."""
    steady = row and row.get("steadiness")
    if not steady:
        return [""] * 5
    means = steady["mean_correlation"]
    mirrored = [steady["mirror_agreement"][unit] for unit in steady["units"]]
    agreement = sum(mirrored) / len(mirrored)
    cells = [means["as_is"], means["averaged"], means["dark"], agreement]
    return [*map(number, cells), number(steady["jitter"]["AU12"], 3)]


def scores_note(evaluation: dict) -> str:
    """Say what smiling against neutral rests on, and which scores fell."""
    counts = evaluation["sources"]["london"]["smiling_against_neutral"]
    note = (
        "Smiling or neutral asks only which of the two is likelier. "
        "AUs 4, 7, 12 and 25 are those that photos show often enough. "
        f"`london` has {counts['smiling']} smiling and {counts['neutral']} neutral photos: "
        "too few for its interval to mean much."
    )
    before = scores_before(evaluation)
    lower = [
        f"{name} on {source}"
        for source, now in evaluation["sources"].items()
        for name, (score, _) in SCORES.items()
        if source in before and has_fallen(score(before[source]), score(now))
    ]
    return f"{note} Lower than the earlier checkpoint's: {'; '.join(lower)}." if lower else note


def has_fallen(before: dict | None, now: dict | None, least: float = 0.005) -> bool:
    """Return whether a score is lower than it was, by more than the rounding of the tables."""
    if not before or not now or before["value"] is None or now["value"] is None:
        return False
    return before["value"] - now["value"] > least


def model_cost(evaluation: dict) -> str:
    """Return size and time of the extractor, beside those of the first one."""
    models = [evaluation["model"]]
    if evaluation["against"]:
        models.insert(0, evaluation["against"]["model"])
    spent = [
        f"{model['parameters']:,} weights, {number(model['megabytes'], 1)} MB, "
        f"{number(model['cpu_ms_a_face'], 1)} ms a face"
        for model in models
    ]
    return f"The extractor: {' → '.join(spent)} (one thread of {models[-1]['processor']})."


def units_table(evaluation: dict, training: dict) -> str:
    """Show correlation and F1 of every unit by source; units without labels are left out."""
    sources = evaluation["sources"].values()
    rows = []
    for unit in training["validation"]["all"]["action_units"]:
        scores = [row["action_units"].get(unit) for row in sources]
        if any(score and score["annotated"] for score in scores):
            rows.append([unit, *map(unit_cell, scores)])
    return table(["unit: r, F1 (positive)", *evaluation["sources"]], rows)


def unit_cell(scores: dict | None) -> str:
    """Format the scores of a unit on a source."""
    if not scores or not scores["annotated"]:
        return "no labels"
    shown = [
        interval(value) if isinstance(value, dict) else number(value)
        for value in (scores["correlation"], scores["f1"])
    ]
    return f"{', '.join(shown)} ({scores['present']})"


def calibration_table(training: dict) -> str:
    """Show the calibration errors of stage 1 by source, before and cross-fitted."""
    record = training["calibration"]
    kinds = {"expression_ece": "expressions", "action_unit_ece": "units, mean"}
    heads = ["images"]
    for what in kinds.values():
        heads += [f"{what}: before", f"{what}: after"]
    rows = []
    for source in record["before"]:
        cells = [source]
        for kind in kinds:
            cells += [number(record[when][source][kind], 3) for when in ("before", "crossfitted")]
        rows.append(cells)
    temperature = f"Temperature of the expressions: {number(record['temperature'])}."
    return paragraphs(table(heads, rows), temperature)


def smiles_table(result: dict) -> str:
    """Show smiling against neutral on people in no training image of their fold."""
    rows = []
    for name, row in result["scores"].items():
        smiling = f"{row['smiling_read_so']} of {row['smiling']}"
        neutral = f"{row['neutral_read_so']} of {row['neutral']}"
        scores = [interval(row[score], 3) for score in ("balanced_accuracy", "auc")]
        rows.append([name, smiling, neutral, *scores])
    heads = ["photos", "smiling read so", "neutral read so", "balanced accuracy", "AUC"]
    cost = f"{len(result['folds'])} trainings, {result['minutes']:.0f} minutes"
    processor, command = result["machine"]["processor"], result["command"]
    return paragraphs(table(heads, rows), f"{cost} ({processor}): `{command}`.")


# Stage 2 ------------------------------------------------------------------------------------------


def pooling_name(results: dict) -> str:
    """Name the temporal pooling of a run."""
    pooling = results["arguments"].get("temporal_pooling", "mask")
    return "the paper's mask layer" if pooling == "mask" else f"`{pooling}` pooling"


def reactions_part(results: dict, ceiling: dict, other: dict) -> str:
    """Show the test scores of the recurrent part.

    Args:
        results: `results_mrnn.json` of the checkpoint.
        ceiling: Ridge regressions on what the network reads and on the simulator's true affect.
        other: The run that differs in its temporal pooling alone; validation chose between the two.
    """
    test = results["test"]["reactions"]
    ours, theirs = test["mean_pearson"], ceiling["reported_affect"]["mean"]
    compared = {
        f"this checkpoint ({pooling_name(results)}), on the noisy affect it reads": test,
        f"the same with {pooling_name(other)}": other["test"]["reactions"],
    }
    rows = [
        [what, *map(number, scores["pearson"].values()), number(scores["mean_pearson"])]
        for what, scores in compared.items()
    ]
    for key, what in (("reported_affect", "the same noisy affect"), ("true_affect", "true affect")):
        rows.append([f"ridge regression on {what}", *map(number, ceiling[key].values())])
    lengths, others = (run["test"]["mean_pearson_by_length"] for run in (results, other))
    by_length = [
        [name, number(row["mean_pearson"]), number(others[name]["mean_pearson"])]
        for name, row in lengths.items()
    ]
    short = f"{100 * results['arguments']['short_share']:.0f} %"
    return paragraphs(
        f"Pearson on {test['clips']} *simulated* test clips with the published label marginals of "
        f"Hume-Reaction (and none of its data), {short} of them shorter than its 10 to 15 s. "
        "The simulator was tuned so that ridge regression lands near published face-only systems: "
        "the size of these numbers is our choice and compares with no published result. "
        f"One seed each. Data: {results['data']['data']}.",
        table(["", *test["pearson"], "mean"], rows),
        f"Mean absolute error {number(test['mean_mae'], 3)}, CCC {number(test['mean_ccc'], 3)}. "
        f"The network {'beats' if ours > theirs else 'does not beat'} a ridge regression on "
        "summaries of what it reads. Mean Pearson by length:",
        table(["frames", "this checkpoint", f"with {pooling_name(other)}"], by_length),
    )


def recurrent_part(comparison: dict, known: dict) -> str:
    """Compare runs of the recurrent part with ridge regressions; then tables of known answer."""
    rows, lengths = [], {}
    ridges = ("ridge on all clips", "ridge on reactions")
    for run in comparison["runs"].values():
        weight = run["arguments"].get("quiet_weight")
        kind = f"`{run['pooling']}`" + (f", quiet weight {weight:g}" if weight is not None else "")
        name = f"{run['data']}, {run['train_clips']:,} clips, seed {run['seed']}: {kind}"
        aucs = run.get("quiet_against_reaction_auc", {})
        for what in ("reactions", "all") if aucs else ("reactions",):
            found = run[what]
            cells = [number(found[model]["mean_pearson"], 3) for model in ("network", *ridges)]
            gains = [
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found[model]["network_gains"])
                for model in ridges
            ]
            rows.append([name, what, *cells, *gains, number(aucs.get("network"), 2)])
        lengths[name] = {
            frames: number(row["network"]) + " / " + number(row["ridge on reactions"])
            for frames, row in run["by_length"].items()
        }
    heads = ["run", "test clips", "network", *ridges, *(f"gain over {name}" for name in ridges)]
    bins = sorted(
        {frames for row in lengths.values() for frames in row},
        key=lambda one: int(one.split("-")[0]),
    )
    tables_rows = [
        [
            " ".join(run["words"]) or "defaults (mask layer)",
            str(run["clips"]),
            str(run["seed"]),
            *(number(run[model], 3) for model in ("network", "ridge", "trees")),
        ]
        for run in known["runs"]
    ]
    return paragraphs(
        "Mean Pearson; ridge regressions on summaries of the same inputs, fitted to all training "
        "clips of the run and to its reactions alone. Gains with 95 % intervals, paired, over "
        "people. AUC: the network's mean output, reactions against quiet clips.",
        table([*heads, "AUC"], rows),
        "Reactions by frames, network / ridge on reactions:",
        table(
            ["run", *bins],
            [[run, *(row.get(name, "–") for name in bins)] for run, row in lengths.items()],
        ),
        f"Tables of features with six targets of known answer, noise ceiling {known['ceiling']:.2f}:",
        table(["settings", "training clips", "seed", "network", "ridge", "trees"], tables_rows),
    )


QUIET = {
    "neutral_still": "*resting, still*",
    "neutral_talking": "*talking*",
    "neutral_moving": "*misread, turning*",
}
"""Quiet faces of `simulator_responses.py`, as the page calls them; displays keep their names."""


def responses_part(result: dict) -> str:
    """Show the answers to published displays and quiet faces."""
    usual = result["mean_output_on_simulated_test_reactions"]
    longest = max(result["seconds"], key=int)
    found = result["seconds"][longest]
    rows = []
    for shown, outputs in found["displays"].items():
        cells = {name: number(value) for name, value in outputs.items()}
        cells[shown] = f"**{cells[shown]}**"
        rows.append([shown, *cells.values()])
    for name, outputs in found["quiet"].items():
        rows.append([QUIET.get(name, f"*{name}*"), *map(number, outputs["mean"].values())])
    rows.append(["*mean of simulated reactions*", *map(number, usual.values())])
    short = []
    for seconds, row in result["seconds"].items():
        keys = ("own_output_highest", "own_display_best")
        counts = [f"{len(row[key])} of {len(usual)}" for key in keys]
        shares = row["quiet"]["neutral_talking"]["share_of_reactions_mean"]
        talking = ", ".join(f"{100 * shares[name]:.0f} %" for name in ("Fear", "Disgust"))
        short.append([seconds, *counts, talking])
    heads = [
        "seconds",
        "own output is highest for",
        "own display moves the output most for",
        "talking: Fear, Disgust, of their usual mean",
    ]
    full = table(["what is shown", *usual], rows)
    return paragraphs(f"{longest} s:", full, table(heads, short))


# Real clips ---------------------------------------------------------------------------------------


def clips_part(clips: dict) -> str:
    """Show what came out for the real clips, with how to read it."""
    return paragraphs(
        clips_table(clips),
        f"{still_verdict(clips)} In most of them AU12 lies near 0 or 1, where it can hardly move, "
        "and three clips are one recording: no proof of steadiness in between.",
    )


def clips_table(clips: dict) -> str:
    """Make the table of the real clips."""
    rows = []
    for name, row in clips.items():
        rates = (row["frames_at_2_fps"], row["frames_at_own_rate"])
        faces = ", ".join(f"{rate['with_face']} of {rate['sampled']}" for rate in rates)
        if row["error"]:
            rows.append([f"`{name}`", faces, row["error"], "", "", ""])
            continue
        first = list(row["intensities"].items())[:3]
        strongest = ", ".join(f"{label} {number(value)}" for label, value in first)
        quarters = [
            " ".join(number(part[channel]) for part in row["quarters"])
            for channel in ("happiness", "AU12")
        ]
        rows.append([f"`{name}`", faces, strongest, *quarters, still_cell(row["still"])])
    heads = [
        "clip",
        "faces at 2 a second, at its own rate",
        "strongest reactions",
        "happiness by quarter",
        "AU12 by quarter",
        "AU12 in its stillest second",
    ]
    return table(heads, rows)


def still_cell(still: dict | None) -> str:
    """Format AU12's standard deviation, and how many grey levels a frame the pixels change."""
    if still is None:
        return "–"
    deviation, change = still["AU12_standard_deviation"], still["pixel_change"]
    return f"± {number(deviation, 3)} (pixels {number(change, 1)})"


def still_verdict(clips: dict) -> str:
    """Say how many of the still stretches reach the aim."""
    stills = {name: row["still"] for name, row in clips.items() if row["still"]}
    above = [
        f"`{name}`"
        for name, still in stills.items()
        if still["AU12_standard_deviation"] >= STILL_LIMIT
    ]
    count = f"{len(stills) - len(above)} of {len(stills)} stillest seconds"
    exceptions = f"; not in {', '.join(above)}" if above else ""
    return f"AU12's standard deviation is below {STILL_LIMIT} in {count}{exceptions}."


def courses_text(clips: dict) -> str:
    """Return one line a clip: the ranges of its courses, and when AU12 is high."""
    lines = []
    for name, row in clips.items():
        if not row["courses"]:
            continue
        ranges = []
        for channel in ("happiness", "AU12", "AU25", "AU04"):
            values = [value for value in row["courses"][channel] if value is not None]
            if values:
                ranges.append(f"{channel} {number(min(values))} to {number(max(values))}")
        spans = [f"{first:.1f}–{last:.1f} s" for first, last in spans_above(row["courses"], "AU12")]
        when = f"in {', '.join(spans)}" if spans else "nowhere"
        lines.append(f"- `{name}`: {', '.join(ranges)}. AU12 is at 0.5 or more {when}.")
    return "\n".join(lines)


def spans_above(courses: dict, channel: str, least: float = 0.5) -> list[tuple[float, float]]:
    """Return first and last time of each run of frames in which a channel is at least so high."""
    spans: list[tuple[float, float]] = []
    inside = False
    for time_s, value in zip(courses["time_s"], courses[channel], strict=True):
        high = value is not None and value >= least
        if high and inside:
            spans[-1] = (spans[-1][0], time_s)
        elif high:
            spans.append((time_s, time_s))
        inside = high
    return spans


def changed_table(clips: dict) -> str:
    """Show how far affect and intensities move when a clip is read in another form."""
    changed = {name: row["changed"] for name, row in clips.items() if row["changed"]}
    rows = [
        [
            f"`{name}`",
            *(
                f"{number(row['affect'], 3)}, {number(row['intensities'], 3)}"
                for row in found.values()
            ),
        ]
        for name, found in changed.items()
    ]
    forms = next(iter(changed.values()))
    return table(["clip: affect, intensities", *forms], rows)


# Ablations ----------------------------------------------------------------------------------------


def experiments_table(simulated: StudySummary, drawn: StudySummary) -> str:
    """Show the paper's three experiments: its claim beside what came out."""
    here, there = ({row.name: row for row in summary.variants} for summary in (simulated, drawn))
    experiments = {
        "no mask layer, padding goes through": ("the mask layer helps", ["padded"]),
        "mean squared error as the loss": ("a correlation loss converges better", ["mse"]),
        "single-task extractor": (
            "the tasks help each other",
            ["single-va", "single-expr", "single-au"],
        ),
    }
    rows = []
    for what, (claim, names) in experiments.items():
        left = here.get(names[0])
        shown = format_difference(left.difference) if left else ""
        rows.append([what, claim, shown, "; ".join(difference_cell(there[name]) for name in names)])
    heads = [
        "in place of the full model",
        "the paper's claim, its size unknown to us",
        "simulated",
        "drawn",
    ]
    return table(heads, rows)


def difference_cell(row: VariantRow) -> str:
    """Format a difference, with both names if it is not to the full model."""
    versus = "" if row.against == "full" else f"`{row.name}` - `{row.against}` "
    return versus + format_difference(row.difference)
