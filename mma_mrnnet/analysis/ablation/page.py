"""A study's summary as Markdown tables and as a plot of its paired differences."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mma_mrnnet.analysis.ablation.summary import NOISE
from mma_mrnnet.analysis.ablation.variants import FULL, QUESTIONS

Row = dict

LEAST_SEEDS = 3
"""Of a difference that is marked: an interval of two rests on the spread of two numbers."""

WIDEST = 0.3
"""Differences beyond are written at the plot's edge, where they would flatten all others."""


MARKS = (
    "▼ and ▲ mark differences whose interval leaves 0 out; one in twenty does so by chance, among all cells of all "
    "tables. The interval over seeds is Student's."
)


def tables(summary: dict) -> str:
    """All tables of a study, question by question."""
    parts = [
        heading(summary),
        MARKS,
        *(
            table(summary, question)
            for question in QUESTIONS
            if question != "transfer" and _of(summary, question)
        ),
    ]
    parts += [
        length_table(summary),
        extractor_table(summary),
        transfer_table(summary),
        left_out(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(summary: dict) -> str:
    """What was compared on what, and the full model's score."""
    full = _full(summary)
    drawn = (
        "data and training drawn anew with each"
        if summary["data_differ_by_seed"]
        else "the same clips for each"
    )
    counts = {
        name: value for name, value in summary["data"].items() if type(value) is int and "_" in name
    }
    clips = ", ".join(
        f"{name.replace('_', ' ')} {value:,}" for name, value in counts.items() if value
    )
    chose = (
        "; the same clips chose each training's best epoch"
        if summary["evaluated_on"] == "validation"
        else ""
    )
    return (
        f"Data: {summary['data']['data']} ({clips}). Scores are of {summary['evaluated_clips']:,} "
        f"{summary['evaluated_on']} clips{chose}; {_seeds(full['seeds'])}, {drawn}. "
        f"Full model: mean Pearson {_number(full['mean'])} "
        f"(standard deviation over seeds {_number(full['sd'])}). Means are over a row's own seeds, "
        "differences over those that both sides have."
    )


def table(summary: dict, question: str) -> str:
    """The variants of one question beside what they are compared with."""
    people = any(row.get("difference_over_people") for row in _of(summary, question))
    named = ["variant", "", "seeds", "mean Pearson (sd)", "difference, 95 % over seeds"]
    columns: list[Callable[[Row], str]] = [
        lambda row: f"`{row['name']}`",
        lambda row: row["what"],
        lambda row: str(len(row["seeds"])),
        lambda row: f"{_number(row['mean'])} ({_number(row['sd'])})",
        lambda row: _difference(row),
    ]
    if people:
        named.append(f"95 % over {summary['resampled']}")
        columns.append(lambda row: _bounds(row.get("difference_over_people")))
    if question == "length":
        named.append("correlation with length")
        columns.append(lambda row: _number(row["length_correlation"]))
    if question == "planted":
        named.append("known to be")
        columns.append(_known)
    rows = [_full(summary), *_of(summary, question)]
    text = _markdown(named, [[column(row) for column in columns] for row in rows])
    if question == "length":
        labels = _number(summary["length_of_clips_and_labels"])
        text += (
            "\n\nThe last column is the mean absolute correlation of an output with the clip's length; "
            f"that of the labels is {labels}."
        )
    return f"### {question}: {QUESTIONS[question]}\n\n{text}"


def length_table(summary: dict) -> str:
    """Difference to the full model by clip length, for the ways of handling it."""
    rows = [row for row in [*_of(summary, "length"), *_of(summary, "planted")] if row["by_length"]]
    if not rows:
        return ""
    full = _full(summary)
    groups = [f"{_up_to(group)} ({group['clips']:.0f} clips)" for group in full["by_length"]]
    lines = [["`full`, mean Pearson", *(_number(group["mean"]) for group in full["by_length"])]]
    lines += [
        [
            f"`{row['name']}` - `{row['against']}`",
            *(difference_text(group["difference"]) for group in row["by_length"]),
        ]
        for row in rows
    ]
    return f"### Differences by length of the clip\n\n{_markdown(['', *groups], lines)}"


def extractor_table(summary: dict) -> str:
    """What the extractors behind the variants say of validation faces."""
    rows = summary["extractors"]
    if not rows:
        return ""
    names = sorted({name for row in rows for name in row["mean"] if name != "mean_of_tasks"})
    lines = [
        [
            f"`{row['name']}`",
            str(row["seeds"]),
            *(_score_of(row, name) for name in names),
        ]
        for row in rows
    ]
    heads = ["extractor", "seeds", *(name.replace("_", " ") for name in names)]
    title = "### Extractors, scored on validation faces (mean and standard deviation over seeds)"
    return f"{title}\n\n{_markdown(heads, lines)}"


CHANNEL_OF = {
    "action_unit_correlation": "action_units",
    "expression_f1": "expressions",
    "valence_arousal_ccc": "valence_arousal",
}
"""Which labels teach what a score of the extractor's is of."""


def _score_of(row: Row, name: str) -> str:
    """A score of the extractor's; a dash for what it was not taught."""
    taught = row["settings"].get("channels")
    if taught is not None and CHANNEL_OF.get(name) not in taught:
        return "-"
    return f"{_number(row['mean'].get(name))} ({_number(row['sd'].get(name))})"


def transfer_table(summary: dict) -> str:
    """Every variant on other data than it was trained on; differences are to the full model there."""
    rows = [row for row in summary["variants"] if row["transfer"]]
    if not rows:
        return ""
    places = list(dict.fromkeys(data for row in rows for data in row["transfer"]))
    lines = []
    for row in rows:
        cells = [row["transfer"].get(data) for data in places]
        if row["name"] == FULL:
            first, own = f"`{FULL}`, mean Pearson", _number(row["mean"])
            values = ["" if cell is None else _number(cell["mean"]) for cell in cells]
        else:
            first = f"`{row['name']}` - `{row['against']}`"
            own = (
                difference_text(row["difference"]) if "difference" in row else "(trained elsewhere)"
            )
            values = ["" if cell is None else difference_text(cell["difference"]) for cell in cells]
        lines.append([first, own, *values])
    heads = ["", "its own data", *(f"`{data}`" for data in places)]
    return f"### Trained here, tried elsewhere\n\n{_markdown(heads, lines)}"


def left_out(summary: dict) -> str:
    """What could not be trained, and why."""
    if not summary["left_out"]:
        return ""
    by_reason: dict[str, list[str]] = {}
    for name, reason in summary["left_out"].items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    parts = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"Not trained, or not with every seed: {'; '.join(parts)}."


def plot(summary: dict, path: Path) -> None:
    """Paired differences with their intervals over the seeds, grouped by question, as a picture beside its target.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows = [
        row for question in QUESTIONS if question != "transfer" for row in _of(summary, question)
    ]
    rows = [row for row in rows if row["difference"]["mean"] is not None]
    figure = Figure(figsize=(8.5, 1.2 + 0.27 * (len(rows) + 1)), layout="constrained")
    axes = figure.add_subplot()
    shown = [row["difference"] for row in rows if abs(row["difference"]["mean"]) <= WIDEST]
    ends = [
        value for difference in shown for value in difference.values() if isinstance(value, float)
    ]
    left, right = min([-0.02, *ends]) - 0.005, max([0.02, *ends]) + 0.005
    for place, row in enumerate(rows):
        difference = row["difference"]
        color = {"lower": "#b2182b", "higher": "#2166ac"}.get(_seen(difference), "#555555")
        if abs(difference["mean"]) > WIDEST:
            edge = left if difference["mean"] < 0 else right
            side = "left" if difference["mean"] < 0 else "right"
            axes.text(
                edge,
                place,
                f"{_signed(difference['mean'])} ",
                ha=side,
                va="center",
                fontsize=8,
                color=color,
            )
        elif difference["low"] is not None:
            axes.plot(
                [difference["low"], difference["high"]], [place, place], color=color, linewidth=2
            )
        axes.plot(difference["mean"], place, "o", color=color, markersize=5)
        if "expected_difference" in row:
            axes.plot(row["expected_difference"], place, "x", color="black", markersize=7)
        if place and row["question"] != rows[place - 1]["question"]:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(left, right)
    labels = [
        f"{row['what']}{'' if row['against'] == FULL else ' - ' + row['against']}" for row in rows
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference of mean Pearson, 95 % over seeds (x: as planted)", fontsize=8)
    axes.grid(axis="x", color="#eeeeee")
    staging = path.with_name(f".{path.name}.tmp")
    figure.savefig(staging, format="png", dpi=110)
    staging.replace(path)


def _of(summary: dict, question: str) -> list[Row]:
    return [row for row in summary["variants"] if row["question"] == question]


def _full(summary: dict) -> Row:
    return next(row for row in summary["variants"] if row["name"] == FULL)


def _difference(row: Row) -> str:
    if row["against"] is None:
        return ""
    versus = "" if row["against"] == FULL else f" to `{row['against']}`"
    return f"{difference_text(row['difference'])}{versus}"


def difference_text(difference: dict) -> str:
    """A paired difference with its interval, and a mark where that leaves 0 out."""
    if difference["mean"] is None:
        return ""
    mark = {"lower": " ▼", "higher": " ▲"}.get(_seen(difference), "")
    return f"{_signed(difference['mean'])} {_bounds(difference)}{mark}".strip()


def _bounds(interval: dict | None) -> str:
    if interval is None or interval["low"] is None:
        return ""
    return f"[{_signed(interval['low'])}, {_signed(interval['high'])}]"


def _seen(difference: dict) -> str:
    """Which way a difference goes, where its interval leaves 0 out."""
    if difference["low"] is None or difference["seeds"] < LEAST_SEEDS:
        return ""
    return "lower" if difference["high"] < 0 else "higher" if difference["low"] > 0 else ""


def _known(row: Row) -> str:
    if row["name"] == NOISE:
        return _signed(row["expected_difference"])
    return {"leak-mask": "exactly 0", "leak-padded": "up, most where there is most padding"}.get(
        row["name"], ""
    )


def _up_to(group: dict) -> str:
    if group["to_s"] is not None:
        return f"to {group['to_s']:.1f} s"
    return "all" if group["above_s"] is None else f"above {group['above_s']:.1f} s"


def _seeds(seeds: Iterable[int]) -> str:
    count = len(list(seeds))
    return f"{count} seeds" if count > 1 else "one seed"


def _number(value: float | None) -> str:
    """.365 for 0.365."""
    if value is None:
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _signed(value: float) -> str:
    text = _number(abs(value))
    return text if text == ".000" else f"{'-' if value < 0 else '+'}{text}"


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *lines])
