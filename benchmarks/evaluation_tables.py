"""The tables of README and docs that come from `results_evaluation.json`, the real clips and the folds over people.

`fill_readme.py` puts them in their places. Before a checkpoint was evaluated, the scores of its training stand in.
"""

import json
from pathlib import Path

from mma_mrnnet.hub.card_metadata import evaluated_macro_f1

STILL_LIMIT = 0.05  # of AU12's standard deviation on a still face, from the project's aims


def load(path: Path) -> dict:
    """A result file."""
    return json.loads(path.read_text("utf-8"))


def load_if_there(path: Path) -> dict | None:
    """A result file, None where it was not made yet."""
    return load(path) if path.is_file() else None


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where it was not measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(measured: dict | None, digits: int = 2) -> str:
    """`0.87 [0.86, 0.88]`, the number alone where there is no interval, or a dash."""
    if measured is None or measured["value"] is None:
        return "–"
    if measured["low"] is None:
        return number(measured["value"], digits)
    return f"{number(measured['value'], digits)} [{number(measured['low'], digits)}, {number(measured['high'], digits)}]"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


# Stage 1 -----------------------------------------------------------------------------------------------------------


def macro_f1(row: dict) -> dict | None:
    """Macro F1 with its interval; None where fewer than two expressions are labelled."""
    return None if evaluated_macro_f1(row) is None else row["expression"]["macro_f1"]


SCORES = {
    "mean AU correlation": (lambda row: row["mean_action_unit_correlation"], 2),
    "of AU4, 7, 12, 25": (lambda row: row["mean_correlation_of_common_units"], 2),
    "expression macro F1": (macro_f1, 2),
    "smiling or neutral, balanced accuracy": (
        lambda row: row["smiling_against_neutral"]["balanced_accuracy"],
        3,
    ),
}
"""What the README shows of a source, and with how many digits."""


def evaluation_table(evaluation: dict) -> str:
    """The extractor by source of images, beside the first checkpoint where they were compared."""
    before = (evaluation["against"] or {"sources": {}})["sources"]
    rows = []
    for source, row in evaluation["sources"].items():
        cells = [source, f"{row['images']} ({row['people']})"]
        for score, digits in SCORES.values():
            now = interval(score(row), digits)
            first = score(before[source]) if source in before and now != "–" else None
            cells.append(now if first is None else f"{number(first['value'], digits)} → {now}")
        rows.append(cells)
    compared = "; the package's first checkpoint → this one, on the same images" if before else ""
    lines = [
        f"**Stage 1**, validation images of people in no training image, with 95 % intervals over people{compared}.",
        "Validation also chose the best epoch and the calibration.",
        "Labels are pseudo-labels (photos) or known by construction (bent photos, renders): this says how well it learnt them, not how",
        "well it reads people. A dash stands where nothing, or one expression alone, is labelled. [All units](docs/results.md).",
        "",
        table(["images", "count (people)", *SCORES], rows),
        "",
        cost_line(evaluation),
    ]
    return "\n".join(lines)


def smiles_note(evaluation: dict, smiles: dict | None) -> str:
    """What the scores of smiling against neutral rest on, and which scores fell against the first checkpoint."""
    lines = [
        "Smiling or neutral asks only which of the two is likelier. AUs 4, 7, 12 and 25 are those that photos show often enough."
    ]
    row = evaluation["sources"].get("london")
    if row:
        counts = row["smiling_against_neutral"]
        lines.append(
            f"`london` has {counts['smiling']} smiling and {counts['neutral']} neutral photos: too few for its interval to mean much."
        )
    if smiles:
        found = smiles["scores"]["all"]
        lines.append(
            f"On people left out of training, a far shorter training found {found['smiling_read_so']} of {found['smiling']} London smiles, "
            "faint ones included ([folds](docs/results.md))."
        )
    before = (evaluation["against"] or {"sources": {}})["sources"]
    lower = [
        f"{name} on {source}"
        for source, now in evaluation["sources"].items()
        for name, (score, _) in SCORES.items()
        if source in before and fell(score(before[source]), score(now))
    ]
    return "\n".join(
        [*lines, *([f"Lower than the first checkpoint's: {'; '.join(lower)}."] if lower else [])]
    )


def fell(before: dict | None, now: dict | None, least: float = 0.005) -> bool:
    """Whether a score is lower than it was, by more than the rounding of the tables."""
    known = before and now and before["value"] is not None and now["value"] is not None
    return bool(known) and before["value"] - now["value"] > least


def cost_line(evaluation: dict) -> str:
    """Size and time of the extractor, beside the first one's."""
    models = [(evaluation["against"] or {}).get("model"), evaluation["model"]]
    spent = [
        f"{model['parameters']:,} weights, {number(model['megabytes'], 1)} MB, {number(model['cpu_ms_a_face'], 1)} ms a face"
        for model in models
        if model
    ]
    return f"The extractor: {' → '.join(spent)} (one thread of {evaluation['model']['processor']})."


def units_table(evaluation: dict | None, training: dict) -> str:
    """Correlation and F1 of every unit by source; units and sources without labels are left out.

    Args:
        evaluation: `results_evaluation.json`, where there is one.
        training: `results_mma.json`.
    """
    sources = evaluation["sources"] if evaluation else training["validation"]
    units = [
        unit
        for unit in training["validation"]["all"]["action_units"]
        if any(row["action_units"].get(unit, {}).get("annotated") for row in sources.values())
    ]
    rows = [
        [unit, *(unit_cell(row["action_units"].get(unit)) for row in sources.values())]
        for unit in units
    ]
    return table(["unit: r, F1 (positive)", *sources], rows)


def unit_cell(scores: dict | None) -> str:
    """What a source says of a unit."""
    if not scores or not scores["annotated"]:
        return "no labels"
    shown = [
        interval(value) if isinstance(value, dict) else number(value)
        for value in (scores["correlation"], scores["f1"])
    ]
    return f"{', '.join(shown)} ({scores['present']})"


def calibration_table(training: dict) -> str:
    """How far stage 1's probabilities are from the shares of images, before calibration and cross-fitted.

    Args:
        training: `results_mma.json`.
    """
    record = training.get("calibration")
    if record is None:
        return "This checkpoint was not calibrated."
    kinds = {"expression_ece": "expressions", "action_unit_ece": "units, mean"}
    heads = [
        "images",
        *(f"{what}: {when}" for what in kinds.values() for when in ("before", "after")),
    ]
    rows = [
        [
            source,
            *(
                number(record[when][source][kind], 3)
                for kind in kinds
                for when in ("before", "crossfitted")
            ),
        ]
        for source in record["before"]
    ]
    return (
        f"{table(heads, rows)}\n\nTemperature of the expressions: {number(record['temperature'])}."
    )


def invariance_table(evaluation: dict | None) -> str:
    """What changing the crops does."""
    if evaluation is None:
        return "Not measured for this checkpoint yet."
    sources = list(evaluation["sources"])
    rows = [
        [change, *(invariance_cell(found.get(source)) for source in sources)]
        for change, found in evaluation["invariance"].items()
    ]
    return table(["crops: affect, AU correlation, same expression", *sources], rows)


def invariance_cell(found: dict | None) -> str:
    """Mean difference of the affect, change of the mean correlation, share of images whose expression stays."""
    if found is None:
        return "–"
    change = found["action_unit_correlation_change"]
    return ", ".join(
        (
            number(found["affect_mean_difference"], 3),
            "–" if change is None else f"{change:+.3f}",
            number(found["expression_agreement"]),
        )
    )


def groups_tables(evaluation: dict | None, training: dict) -> str:
    """Scores by source, and by how the crops look; for the page on fairness.

    Args:
        evaluation: `results_evaluation.json`, where there is one.
        training: `results_mma.json`.
    """
    if evaluation is None:
        rows = [
            [
                source,
                str(row["images"]),
                number(row["mean_action_unit_correlation"]),
                number(row["mean_action_unit_f1"]),
            ]
            for source, row in training["validation"].items()
        ]
        note = "Groups by look were not measured for this checkpoint yet; by source of images, from its training:"
        return f"{note}\n\n{table(['images', 'count', 'mean AU correlation', 'mean AU F1'], rows)}"
    sources = list(evaluation["sources"])
    tables = [
        table(
            [f"by {kind}: AU correlation, expression F1 (images)", *sources],
            [
                [group["name"], *(group_cell(group["sources"].get(source)) for source in sources)]
                for group in groups
            ],
        )
        for kind, groups in evaluation["groups"].items()
    ]
    by_source = table(
        ["by source", "images (people)", "mean AU correlation", "expression macro F1"],
        [
            [
                source,
                f"{row['images']} ({row['people']})",
                interval(row["mean_action_unit_correlation"]),
                interval(macro_f1(row)),
            ]
            for source, row in evaluation["sources"].items()
        ],
    )
    return "\n\n".join([by_source, *tables])


def group_cell(found: dict | None) -> str:
    """What a source says of a group; a dash where too few images are in it."""
    if found is None:
        return "–"
    scores = (number(found["mean_action_unit_correlation"]), number(found["expression_macro_f1"]))
    return f"{', '.join(scores)} ({found['images']})"


# People left out ---------------------------------------------------------------------------------------------------


def smiles_table(result: dict | None) -> str:
    """Smiling against neutral on photos of people in no training image of their fold."""
    if result is None:
        return "Not run for this checkpoint yet: `python benchmarks/leave_people_out.py` trains the folds."
    heads = ["photos", "smiling read so", "neutral read so", "balanced accuracy", "AUC"]
    rows = [
        [
            name,
            f"{row['smiling_read_so']} of {row['smiling']}",
            f"{row['neutral_read_so']} of {row['neutral']}",
            interval(row["balanced_accuracy"], 3),
            interval(row["auc"], 3),
        ]
        for name, row in result["scores"].items()
    ]
    return "\n".join(
        [
            table(heads, rows),
            "",
            f"{len(result['folds'])} trainings, {result['minutes']:.0f} minutes ({result['machine']['processor']}): `{result['command']}`.",
        ]
    )


# Real clips --------------------------------------------------------------------------------------------------------


def clips_table(clips: dict) -> str:
    """What came out for the real clips."""
    rows = []
    for name, row in clips.items():
        usual, native = row["frames_at_2_fps"], row["frames_at_own_rate"]
        faces = f"{usual['with_face']} of {usual['sampled']}, {native['with_face']} of {native['sampled']}"
        if row["error"]:
            rows.append([f"`{name}`", faces, row["error"], "", "", ""])
            continue
        strongest = ", ".join(
            f"{label} {number(value)}" for label, value in list(row["intensities"].items())[:3]
        )
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
    ]
    return table([*heads, "AU12 in its stillest second"], rows)


def still_cell(still: dict | None) -> str:
    """Standard deviation of AU12, and by how many grey levels the pixels change from frame to frame."""
    if still is None:
        return "–"
    return f"± {number(still['AU12_standard_deviation'], 3)} (pixels {number(still['pixel_change'], 1)})"


def courses_text(clips: dict) -> str:
    """One line a clip: between what the courses run, and when AU12 is high. From the file, not from looking."""
    lines = []
    for name, row in clips.items():
        if not row["courses"]:
            continue
        ranges = ", ".join(
            f"{channel} {number(min(values))} to {number(max(values))}"
            for channel in ("happiness", "AU12", "AU25", "AU04")
            if (values := [value for value in row["courses"][channel] if value is not None])
        )
        spans = ", ".join(
            f"{first:.1f}–{last:.1f} s" for first, last in spans_above(row["courses"], "AU12")
        )
        lines.append(
            f"- `{name}`: {ranges}. AU12 is at 0.5 or more {'in ' + spans if spans else 'nowhere'}."
        )
    return "\n".join(lines)


def spans_above(courses: dict, channel: str, least: float = 0.5) -> list[tuple[float, float]]:
    """First and last time of each run of frames in which a channel is at least so high."""
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


SATURATED = (
    "In most of them AU12 lies near 0 or 1, where it can hardly move, and three clips are one recording: "
    "no proof of steadiness in between."
)


def still_verdict(clips: dict) -> str:
    """How many of the stretches found lie within the aim."""
    found = {
        name: row["still"]["AU12_standard_deviation"] for name, row in clips.items() if row["still"]
    }
    above = [f"`{name}`" for name, value in found.items() if value >= STILL_LIMIT]
    verdict = f"AU12's standard deviation is below {STILL_LIMIT} in {len(found) - len(above)} of {len(found)} stillest seconds"
    return f"{verdict}{'; not in ' + ', '.join(above) if above else ''}."


def changed_table(clips: dict) -> str:
    """How far affect and intensities move when a clip is read in another form."""
    names = next(list(row["changed"]) for row in clips.values() if row["changed"])
    rows = [
        [
            f"`{name}`",
            *(
                f"{number(row['changed'][change]['affect'], 3)}, {number(row['changed'][change]['intensities'], 3)}"
                for change in names
            ),
        ]
        for name, row in clips.items()
        if row["changed"]
    ]
    return table(["clip: affect, intensities", *names], rows)


# Stage 2 -----------------------------------------------------------------------------------------------------------

QUIET = {
    "neutral_still": "*resting, still*",
    "neutral_talking": "*talking*",
    "neutral_moving": "*misread, turning*",
}
"""Quiet faces of `simulator_responses.py`, as the page calls them."""


def responses_text(result: dict | None) -> str:
    """What the model answers to published displays and to quiet faces, for one length in full and for all in short."""
    if result is None:
        return "Not measured for this checkpoint yet."
    names = list(result["mean_output_on_simulated_test_reactions"])
    longest = max(result["seconds"], key=int)
    found = result["seconds"][longest]
    rows = [
        [name, *(own_marked(value, name == output) for output, value in given.items())]
        for name, given in found["displays"].items()
    ]
    rows += [
        [QUIET[name], *(number(value) for value in given["mean"].values())]
        for name, given in found["quiet"].items()
    ]
    usual = [
        "*mean of simulated reactions*",
        *map(number, result["mean_output_on_simulated_test_reactions"].values()),
    ]
    lines = [f"{longest} s:", "", table(["what is shown", *names], [*rows, usual]), ""]
    heads = [
        "seconds",
        "own output is highest for",
        "own display moves the output most for",
        "talking: Fear, Disgust, of their usual mean",
    ]
    short = []
    for seconds, row in result["seconds"].items():
        shares = row["quiet"]["neutral_talking"]["share_of_reactions_mean"]
        counts = [
            f"{len(row[key])} of {len(names)}" for key in ("own_output_highest", "own_display_best")
        ]
        short.append(
            [
                seconds,
                *counts,
                ", ".join(f"{100 * shares[name]:.0f} %" for name in ("Fear", "Disgust")),
            ]
        )
    return "\n".join([*lines, table(heads, short)])


def own_marked(value: float, own: bool) -> str:
    """A number, bold where the output is that of the reaction shown."""
    return f"**{number(value)}**" if own else number(value)
