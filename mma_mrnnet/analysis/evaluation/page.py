"""A report as a page of Markdown tables."""

from collections.abc import Callable

Report = dict


def page(report: Report) -> str:
    """`evaluation.md`: every number of the report that a reader compares, source by source."""
    parts = [
        _heading(report),
        _costs(report),
        _summary(report["sources"]),
        _units(
            report["sources"], "correlation", "Action units: correlation with the intensity labels"
        ),
        _units(report["sources"], "f1", "Action units: F1 of presence (intensity .4 or more)"),
        *(_confusion(source, scores["expression"]) for source, scores in report["sources"].items()),
        _calibration(report["sources"]),
        _talkers(report["neutral_talkers"]),
        *(
            _groups(kind, groups, list(report["sources"]))
            for kind, groups in report["groups"].items()
        ),
        _invariance(report["invariance"], list(report["sources"])),
        _mirrored(report),
        _against(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: Report) -> str:
    data = report["data"]
    lines = [
        f"# {report['model']['name']} on {data['split']} faces",
        f"`{report['command']}`",
        f"{report['what'][0].upper()}{report['what'][1:]}. {data['images']:,} images of {_people(data)}.",
    ]
    if data["label_origin"]:
        origins = [
            f"- {name.replace('_', ' ')}: {origin}" for name, origin in data["label_origin"].items()
        ]
        lines.append("\n".join(["Where the labels come from:", "", *origins]))
    return "\n\n".join(lines)


def _people(data: Report) -> str:
    """How many, or that nobody can tell: then intervals are over images."""
    if data["people"] >= data["images"]:
        return "as many people, or of people who are not named: then intervals are over images"
    return f"{data['people']:,} people"


def _costs(report: Report) -> str:
    models = [report["model"]] + ([report["against"]["model"]] if report["against"] else [])
    heads = ["model", "parameters", "MB", "CPU ms a face"]
    rows = [
        [
            model["name"],
            f"{model['parameters']:,}",
            f"{model['megabytes']:.1f}",
            f"{model['cpu_ms_a_face']:.1f}",
        ]
        for model in models
    ]
    note = f"The network alone, 16 faces at once, one thread of {models[0]['processor']}, the best of five."
    return f"## Cost\n\n{_table(heads, rows)}\n\n{note}"


SUMMARY: dict[str, Callable[[Report], str]] = {
    "images (people)": lambda scores: f"{scores['images']:,} ({scores['people']:,})",
    "AU correlation, mean": lambda scores: interval(scores["mean_action_unit_correlation"]),
    "of AUs 4, 7, 12, 25": lambda scores: interval(scores["mean_correlation_of_common_units"]),
    "AU F1, mean": lambda scores: interval(scores["mean_action_unit_f1"]),
    "expression images": lambda scores: f"{scores['expression']['images']:,}",
    "expression macro F1": lambda scores: interval(scores["expression"]["macro_f1"]),
    "expression balanced accuracy": lambda scores: interval(
        scores["expression"]["balanced_accuracy"]
    ),
    "smiling / neutral images": lambda scores: (
        f"{scores['smiling_against_neutral']['smiling']} / {scores['smiling_against_neutral']['neutral']}"
    ),
    "smiling or neutral, balanced accuracy": lambda scores: interval(
        scores["smiling_against_neutral"]["balanced_accuracy"]
    ),
    "smiling or neutral, AUC": lambda scores: number(scores["smiling_against_neutral"]["auc"]),
    "valence CCC": lambda scores: interval(scores["valence_arousal"]["valence"]),
    "arousal CCC": lambda scores: interval(scores["valence_arousal"]["arousal"]),
}
"""The rows of the table of sources."""


def _summary(sources: Report) -> str:
    rows = [
        [name, *(cell(scores) for scores in sources.values())] for name, cell in SUMMARY.items()
    ]
    note = (
        "Means over units are over those whose labels vary in the source; macro F1 and balanced accuracy over the "
        "expressions that occur there. Smiling or neutral: which of the two is likelier."
    )
    return f"## By source\n\n{_table(['', *sources], rows)}\n\n{note}"


def _units(sources: Report, score: str, title: str) -> str:
    units = list(next(iter(sources.values()))["action_units"])
    rows = []
    for unit in units:
        own = [scores["action_units"][unit] for scores in sources.values()]
        cells = [
            "no labels" if not one["annotated"] else f"{interval(one[score])} ({one['present']})"
            for one in own
        ]
        rows.append([unit, *cells])
    return (
        f"## {title}\n\nIn brackets behind it the images in which the unit is present.\n\n"
        + _table(["", *sources], rows)
    )


def _confusion(source: str, expression: Report) -> str:
    if not expression["images"]:
        return ""
    rows = [
        [name, *map(str, counts)]
        for name, counts in zip(expression["names"], expression["confusion"], strict=True)
        if sum(counts)
    ]
    return (
        f"## Expressions of {source}: rows are labels\n\n{_table(['', *expression['names']], rows)}"
    )


FITTED = (
    "Where these are the validation images of the model's own training, they also chose its epoch and its "
    "calibration: the errors are those of the fit; `calibration` in the training's results has cross-fitted ones."
)


def _calibration(sources: Report) -> str:
    rows = [
        [source, *(number(scores["calibration"][name]) for name in scores["calibration"])]
        for source, scores in sources.items()
    ]
    heads = ["", "expressions: ECE", "expressions: Brier", "action units: mean ECE"]
    note = (
        "Expected calibration error over ten bins: of the likeliest expression, and of a unit's presence at intensity "
        f".4 or more. With few images it is larger than it would be with many. {FITTED}"
    )
    return f"## Calibration\n\n{_table(heads, rows)}\n\n{note}"


def _talkers(talkers: Report) -> str:
    seen = {source: found for source, found in talkers.items() if found["images"]}
    if not seen:
        return ""
    names = list(next(iter(seen.values()))["mean_expression"])
    rows = [
        [source, str(found["images"]), *(number(found["mean_expression"][name]) for name in names)]
        for source, found in seen.items()
    ]
    text = "Faces that part the lips or drop the jaw and do nothing else: the mean probability of each expression."
    return f"## Calm talkers\n\n{text}\n\n{_table(['', 'images', *names], rows)}"


NOTES = {
    "pose": "Degrees are estimated from where the nose's tip stands between the eyes of five detected points; no label "
    "says how a head is turned.",
    "blur": "Thirds of each source by the variance of the Laplacian.",
    "grey": "Crops without colour against those with. Size is not compared: every crop is stored at the same size, "
    "and how large the face was in its photo is not known; see resolution below.",
}


def _groups(kind: str, groups: list[Report], sources: list[str]) -> str:
    rows = []
    for group in groups:
        cells = []
        for source in sources:
            found = group["sources"].get(source)
            cells.append("" if found is None else _pair(found) + f" ({found['images']})")
        rows.append([group["name"], *cells])
    text = f"{NOTES[kind]} Mean AU correlation, expression macro F1 (images); left out below 20 images."
    return f"## By {kind}\n\n{text}\n\n{_table(['', *sources], rows)}"


def _invariance(changes: Report, sources: list[str]) -> str:
    rows = [
        [
            change,
            *(
                f"{number(found[source]['affect_mean_difference'])}, "
                f"{signed(found[source]['action_unit_correlation_change'])}, "
                f"{number(found[source]['expression_agreement'])}"
                for source in sources
            ),
        ]
        for change, found in changes.items()
    ]
    text = (
        "What happens to up to 200 images of each source when they are changed: mean absolute difference of the "
        "affect, change of the mean AU correlation, share of images whose likeliest expression stays."
    )
    return f"## Invariance\n\n{text}\n\n{_table(['', *sources], rows)}"


def _mirrored(report: Report) -> str:
    rows = []
    for source, averaged in report["mirrored_average"].items():
        own = report["sources"][source]
        rows.append(
            [
                source,
                number(own["mean_action_unit_correlation"]["value"]),
                number(averaged["mean_action_unit_correlation"]),
                number(own["expression"]["macro_f1"]["value"]),
                number(averaged["expression_macro_f1"]),
            ]
        )
    heads = [
        "",
        "AU correlation",
        "with the mirror image",
        "expression macro F1",
        "with the mirror image",
    ]
    text = "The mean of the outputs for a crop and for its mirror image, at twice the cost."
    return f"## Mirrored average\n\n{text}\n\n{_table(heads, rows)}"


def _against(report: Report) -> str:
    other = report["against"]
    if other is None:
        return ""
    heads, rows = ["", report["model"]["name"], other["model"]["name"]], []
    for source, scores in report["sources"].items():
        for name, cell in SUMMARY.items():
            if "images" not in name:
                rows.append([f"{source}: {name}", cell(scores), cell(other["sources"][source])])
        for name in scores["calibration"]:
            both = (scores["calibration"], other["sources"][source]["calibration"])
            rows.append(
                [f"{source}: {name.replace('_', ' ')}", *(number(one[name]) for one in both)]
            )
    rows = [row for row in rows if row[1:] != ["-", "-"]]
    return f"## Against {other['model']['name']}, on the same images\n\n{_table(heads, rows)}"


# Numbers -----------------------------------------------------------------------------------------------------------


def interval(score: Report) -> str:
    """`.873 [.861, .884]`, or the value alone where there is no interval."""
    if score["value"] is None or score["low"] is None:
        return number(score["value"])
    return f"{number(score['value'])} [{number(score['low'])}, {number(score['high'])}]"


def number(value: float | None) -> str:
    """`.365` for 0.365, `-` where there is none."""
    if value is None:
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def signed(value: float | None) -> str:
    """As `number`, with its sign."""
    if value is None:
        return "-"
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"


def _pair(found: Report) -> str:
    return (
        f"{number(found['mean_action_unit_correlation'])}, {number(found['expression_macro_f1'])}"
    )


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])
