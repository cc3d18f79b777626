"""A study's summary as Markdown tables, and a plot of its paired differences."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mma_mrnnet.analysis.markdown import format_number, format_signed, format_table
from mma_mrnnet.analysis.study_summary import (
    Bounds,
    Difference,
    ExtractorRow,
    LengthGroup,
    StudySummary,
    VariantRow,
)
from mma_mrnnet.analysis.variants import FULL, TRANSFER
from mma_mrnnet.files import replaced_file

LEAST_SEEDS = 3
"""Least number of seeds for marking a difference: with two, the interval is unreliable."""

MARKS = (
    "▼ and ▲ mark differences whose interval leaves 0 out; one in twenty does so by chance, among "
    "all cells of all tables. The interval over seeds is Student's."
)


def make_page(summary: StudySummary) -> str:
    """Return all tables of a study, by question."""
    asked = [name for name in summary.questions if name != TRANSFER and summary.rows_of(name)]
    parts = [
        describe_study(summary),
        MARKS,
        *(make_table(summary, question) for question in asked),
        make_length_table(summary),
        make_extractor_table(summary),
        make_transfer_table(summary),
        list_left_out(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_study(summary: StudySummary) -> str:
    """Describe what was compared on which data, with the full model's score."""
    full, count = summary.full, len(summary.full.seeds)
    clips = [
        f"{name.replace('_', ' ')} {value:,}"
        for name, value in summary.data.items()
        if type(value) is int and "_" in name and value
    ]
    chose = ", which chose the best epochs too" if summary.evaluated_on == "validation" else ""
    drawn = ", each with data of its own" if summary.data_differ_by_seed else ", the same clips"
    seeds = f"{count} {'seeds' if count > 1 else 'seed'}{drawn}"
    return (
        f"Data: {summary.data['data']} ({', '.join(clips)}). Mean Pearson on "
        f"{summary.evaluated_clips:,} {summary.evaluated_on} clips{chose}; {seeds}. "
        f"Full model: {format_number(full.mean)} (deviation over seeds {format_number(full.sd)})."
    )


def make_table(summary: StudySummary, question: str) -> str:
    """Return the table of one question: variants beside their baselines."""
    rows = summary.rows_of(question)
    columns: dict[str, Callable[[VariantRow], str]] = {
        "variant": lambda row: f"`{row.name}`",
        "": lambda row: row.what,
        "seeds": lambda row: str(len(row.seeds)),
        "mean Pearson (sd)": lambda row: f"{format_number(row.mean)} ({format_number(row.sd)})",
        "difference, 95 % over seeds": _format_versus,
    }
    if any(row.difference_over_people for row in rows):
        columns[f"95 % over {summary.resampled}"] = lambda row: _format_bounds(
            row.difference_over_people
        )
    note = ""
    if question == "length":
        columns["correlation with length"] = lambda row: format_number(row.length_correlation)
        labels = format_number(summary.length_of_clips_and_labels)
        note = "\n\nLast column: mean absolute correlation of an output with the length of the clip"
        note = f"{note}; of a label {labels}."
    lines = [[column(row) for column in columns.values()] for row in [summary.full, *rows]]
    title = f"### {question}: {summary.questions.get(question, '')}"
    return f"{title}\n\n{format_table(list(columns), lines)}{note}"


def make_length_table(summary: StudySummary, questions: Sequence[str] = ("length",)) -> str:
    """Return differences by clip length for the variants of some questions."""
    rows = [row for question in questions for row in summary.rows_of(question) if row.by_length]
    if not rows:
        return ""
    groups = summary.full.by_length
    heads = ["", *(f"{_describe_group(group)} ({group.clips:.0f} clips)" for group in groups)]
    lines = [["`full`, mean Pearson", *(format_number(group.mean) for group in groups)]]
    for row in rows:
        cells = [format_difference(group.difference) for group in row.by_length]
        lines.append([f"`{row.name}` - `{row.against}`", *cells])
    return f"### Differences by length of the clip\n\n{format_table(heads, lines)}"


def make_extractor_table(summary: StudySummary) -> str:
    """Return the validation scores of the extractors."""
    rows = summary.extractors
    if not rows:
        return ""
    names = sorted({name for row in rows for name in row.mean if name != "mean_of_tasks"})
    heads = ["extractor", "seeds", *(name.replace("_", " ") for name in names)]
    lines = [
        [f"`{row.name}`", str(row.seeds), *(_format_score(row, name) for name in names)]
        for row in rows
    ]
    title = "### Extractors, scored on validation faces (mean and standard deviation over seeds)"
    return f"{title}\n\n{format_table(heads, lines)}"


CHANNEL_OF = {
    "action_unit_correlation": "action_units",
    "expression_f1": "expressions",
    "valence_arousal_ccc": "valence_arousal",
}
"""{extractor score: the channel whose labels teach it}."""


def _format_score(row: ExtractorRow, name: str) -> str:
    """Format an extractor's score; a dash if its channel was not taught."""
    taught = row.settings.get("channels")
    if taught is not None and CHANNEL_OF.get(name) not in taught:
        return "-"
    return f"{format_number(row.mean.get(name))} ({format_number(row.sd.get(name))})"


def make_transfer_table(summary: StudySummary) -> str:
    """Return every variant's scores on other data."""
    rows = [row for row in summary.variants if row.transfer]
    if not rows:
        return ""
    places = list(dict.fromkeys(data for row in rows for data in row.transfer))
    lines = []
    for row in rows:
        found = [row.transfer.get(data) for data in places]
        if row.name == FULL:
            line = [f"`{FULL}`, mean Pearson", format_number(row.mean)]
            line += ["" if one is None else format_number(one.mean) for one in found]
        else:
            own = "(trained elsewhere)"
            if row.difference is not None:
                own = format_difference(row.difference)
            line = [f"`{row.name}` - `{row.against}`", own]
            line += ["" if one is None else format_difference(one.difference) for one in found]
        lines.append(line)
    heads = ["", "its own data", *(f"`{data}`" for data in places)]
    return f"### Trained here, tried elsewhere\n\n{format_table(heads, lines)}"


def list_left_out(summary: StudySummary) -> str:
    """List the variants that could not be trained, with reasons."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in summary.left_out.items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    parts = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"Not trained, or not with every seed: {'; '.join(parts)}." if parts else ""


def draw_differences(summary: StudySummary, path: Path) -> None:
    """Draw paired differences with intervals as a PNG; raise ImportError without matplotlib."""
    from matplotlib.figure import Figure

    pairs = [
        (row, row.difference)
        for question in summary.questions
        for row in summary.rows_of(question)
        if question != TRANSFER and row.difference is not None and row.difference.mean is not None
    ]
    figure = Figure(figsize=(8.5, 1.2 + 0.27 * (len(pairs) + 1)), layout="constrained")
    axes = figure.add_subplot()
    colors = {"lower": "#b2182b", "higher": "#2166ac"}
    for place, (row, found) in enumerate(pairs):
        color = colors.get(_find_direction(found), "#555555")
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=2)
        axes.plot(found.mean or 0.0, place, "o", color=color, markersize=5)
        if row.expected_difference is not None:
            axes.plot(row.expected_difference, place, "x", color="black", markersize=7)
        if place and row.question != pairs[place - 1][0].question:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    labels = [
        row.what if row.against == FULL else f"{row.what} - {row.against}" for row, _ in pairs
    ]
    axes.set_yticks(range(len(pairs)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference of mean Pearson, 95 % over seeds (x: as planted)", fontsize=8)
    axes.grid(axis="x", color="#eeeeee")
    with replaced_file(path) as staging:
        figure.savefig(staging, format="png", dpi=110)


# Cells ------------------------------------------------------------------------------------------


def _format_versus(row: VariantRow) -> str:
    if row.against is None or row.difference is None:
        return ""
    versus = "" if row.against == FULL else f" to `{row.against}`"
    return f"{format_difference(row.difference)}{versus}"


def format_difference(difference: Difference) -> str:
    """Return `-.031 [-.041, -.020] ▼`; the mark appears only if the interval excludes 0."""
    if difference.mean is None:
        return ""
    mark = {"lower": " ▼", "higher": " ▲"}.get(_find_direction(difference), "")
    return f"{format_signed(difference.mean)} {_format_bounds(difference)}{mark}".strip()


def _format_bounds(bounds: Bounds | Difference | None) -> str:
    if bounds is None or bounds.low is None or bounds.high is None:
        return ""
    return f"[{format_signed(bounds.low)}, {format_signed(bounds.high)}]"


def _find_direction(difference: Difference) -> str:
    """Return `lower` or `higher` if the interval excludes 0, else an empty string."""
    low, high = difference.low, difference.high
    if low is None or high is None or difference.seeds < LEAST_SEEDS:
        return ""
    return "lower" if high < 0 else "higher" if low > 0 else ""


def _describe_group(group: LengthGroup) -> str:
    if group.to_s is not None:
        return f"to {group.to_s:.1f} s"
    return "all" if group.above_s is None else f"above {group.above_s:.1f} s"
