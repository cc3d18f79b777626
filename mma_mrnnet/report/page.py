"""One self-contained HTML page of clips and their people, or of two side by side; it asks nothing of any network."""

import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mma_mrnnet.model.labels import VALENCE_AROUSAL
from mma_mrnnet.prediction import VideoPrediction, shown
from mma_mrnnet.report import figures

PAGE_SUFFIXES = (".html", ".htm")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>{style}
<style>body{{margin:0}}main{{max-width:{width};margin:auto;padding:1em;min-height:100vh;background:var(--back)}}
h1{{font-size:1.35em;margin:.2em 0;overflow-wrap:anywhere}}section+section>h1{{margin-top:1.6em}}
.mma h2.who{{font-size:1.25em;border-top:1px solid var(--line);padding-top:.8em}}.mma h2.who+p{{margin-top:0}}
.pair>section{{min-width:0}}
.mma .which{{display:none;font-weight:600;margin:1.4em 0 -1em}}
.pair{{display:grid;grid-template-columns:1fr 1fr;gap:1.6em}}
@media(max-width:52em){{.pair{{grid-template-columns:1fr}}.mma .which{{display:block}}}}</style></head>
<body class="mma"><main>{body}</main></body></html>
"""


def summary_parts(prediction: VideoPrediction) -> str:
    """What a clip comes to: the intensities, with the words that must stand beside them."""
    if prediction.error is not None:
        said = [prediction.error, *prediction.notes()]
        return f'<div class="mma-notes">{"".join(f"<p>{escape(note)}</p>" for note in said)}</div>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in prediction.notes())
    mark = (
        "<p>The dashed mark is the intensity without the neutral calibration.</p>"
        if prediction.uncorrected
        else ""
    )
    noted = f'<div class="mma-notes">{notes}</div>' if notes else ""
    return f"{figures.intensity_bars(prediction)}{mark}{noted}"


def timeline_parts(prediction: VideoPrediction) -> str:
    """What the clip showed over time, and which of its moments carried the result."""
    if prediction.frames.empty:
        return ""
    line = figures.TimeLine.of(prediction)
    up = '<span class="mma-key" style="background:var(--up)"></span>'
    down = '<span class="mma-key" style="background:var(--down)"></span>'
    gap = '<span style="white-space:nowrap"><span class="mma-key mma-hatch"></span>no face</span>'
    parts = []
    if prediction.error is None:
        parts += [
            "<h2>Which moments carried the result</h2>",
            f"<p>{up}up: that frame adds to the output before its sigmoid; {down}down: it takes away. Together with a "
            "constant they are the output exactly. It is an account, not a cause: each frame's number also holds what "
            "came before it.</p>",
            figures.moments_rows(prediction, line),
            "<h2>The estimate so far</h2><p>What the model would have said had the clip ended there, 0 to 1.</p>",
            figures.running_rows(prediction, line),
        ]
    if prediction.frames_with_face == 0:
        return "".join(parts)
    if all(name in prediction.frames.columns for name in VALENCE_AROUSAL):
        parts += [
            f"<h2>Valence and arousal</h2><p>{gap}</p>",
            figures.valence_arousal_rows(prediction, line),
        ]
    for title, names in (
        ("Expressions", figures.expression_names(prediction.frames)),
        ("Action units", figures.action_unit_columns(prediction.frames)),
    ):
        if names:
            said = f"<p>{up}the stronger the colour, the likelier; {gap}</p>"
            parts += [f"<h2>{title}</h2>{said}", figures.heat_rows(prediction, line, names)]
    return "".join(parts)


def strip_parts(prediction: VideoPrediction) -> str:
    """The film strip, where there is one."""
    if not prediction.strip:
        return ""
    return f"<h2>What the model saw</h2>{figures.film_strip(prediction.strip)}"


def report_page(predictions: Sequence[VideoPrediction]) -> str:
    """A page about the people of one clip or of several, a section a clip.

    Args:
        predictions: at least one.

    Returns:
        HTML in itself complete: styles and pictures are inside, there is no script.
    """
    clips: dict[str, list[VideoPrediction]] = {}
    for prediction in predictions:
        clips.setdefault(prediction.file, []).append(prediction)
    title = _name(predictions[0]) if len(clips) == 1 else f"{len(clips)} clips"
    return page_of(title, [clip_section(people) for people in clips.values()])


def page_of(title: str, sections: Sequence[str]) -> str:
    """The page of sections that `clip_section` made, complete in itself."""
    body = figures.wrapped("".join(sections))
    return _PAGE.format(title=escape(title), style=figures.style(), width="58em", body=body)


def clip_section(people: Sequence[VideoPrediction]) -> str:
    """Everything about the people of one clip, at least one, as a part of a page."""
    parts = "".join(_person(each, several=len(people) > 1) for each in people)
    return f"<section><h1>{escape(_name(people[0]))}</h1>{parts}</section>"


def _name(prediction: VideoPrediction) -> str:
    """The clip's name without its folder."""
    return shown(Path(prediction.file).name)


def _person(prediction: VideoPrediction, *, several: bool) -> str:
    """Everything about one person of a clip."""
    head = f'<h2 class="who">Person {prediction.track}</h2>' if several else ""
    others = None if several else others_said(prediction)
    return (
        f"{head}<p>{escape(_counts(prediction, others))}</p>{summary_parts(prediction)}"
        f"{strip_parts(prediction)}{timeline_parts(prediction)}"
    )


def others_said(prediction: VideoPrediction) -> str | None:
    """That this person was not alone, where only one of several is shown."""
    if prediction.people < 2:
        return None
    return f"{prediction.people} people were seen; this is who is in most frames"


def _counts(prediction: VideoPrediction, others: str | None) -> str:
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    return (
        f"{length}a face in {prediction.frames_with_face} of {prediction.frames_sampled} frames looked at"
        + (f". {others}" if others else "")
    )


def comparison_page(one: VideoPrediction, other: VideoPrediction) -> str:
    """Two clips side by side, or one below the other where the page is narrow; the intensities first.

    Args:
        one: the left one.
        other: the right one; of the same model, so that its targets are the same.

    Returns:
        HTML in itself complete.

    Raises:
        ValueError: the two have other targets.
    """
    figures.check_comparable(one, other)
    names = pair_names(one, other)
    relative = (
        '<div class="mma-notes"><p>Intensities are relative within each clip: a longer bar on one side does not mean '
        "that this person felt more than the other.</p></div>"
        if one.relative or other.relative
        else ""
    )
    rows = "".join(
        "".join(f"<section>{part}</section>" for part in pair)
        for pair in zip(*map(_comparable, (one, other), names), strict=True)
    )
    body = f'<h1>{" and ".join(map(escape, names))}</h1>{relative}<div class="pair">{rows}</div>'
    return _PAGE.format(
        title=escape(" and ".join(names)),
        style=figures.style(),
        width="90em",
        body=figures.wrapped(body),
    )


def pair_names(one: VideoPrediction, other: VideoPrediction) -> tuple[str, str]:
    """What to call two clips: their names, with their folders where the names are the same."""
    names = _name(one), _name(other)
    return names if names[0] != names[1] else (shown(one.file), shown(other.file))


def _comparable(prediction: VideoPrediction, name: str) -> tuple[str, str, str]:
    """The parts of a clip that stand beside those of the other one."""
    head = f"<h2>{escape(name)}</h2><p>{escape(_counts(prediction, others_said(prediction)))}</p>"
    which = f'<p class="which">{escape(name)}</p>'  # shown where the two stand below each other
    strip, timeline = (
        f"{which}{part}" if part else ""
        for part in (strip_parts(prediction), timeline_parts(prediction))
    )
    return head + summary_parts(prediction), strip, timeline


def write_page(page: str, path: str | os.PathLike[str]) -> Path:
    """Writes a page beside its target and renames it.

    Raises:
        ValueError: an ending other than .html or .htm.
    """
    path = Path(path)
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise ValueError(f"{path}: a page is written as .html; got {path.suffix or 'no ending'!r}")
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        staging.write_text(page, encoding="utf-8")
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return path
