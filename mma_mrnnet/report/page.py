"""Self-contained HTML pages: clips with their people, or two clips side by side.

No script, no network requests. Templates are in `templates/`.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mma_mrnnet.files import write_text
from mma_mrnnet.prediction import VideoPrediction, shown
from mma_mrnnet.report import figures

PAGE_SUFFIXES = (".html", ".htm")


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("mma_mrnnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = figures.format_clock
    environment.filters["percent"] = lambda share: f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    environment.filters["picture"] = encode_picture
    environment.globals |= {
        "figures": figures,
        "TimeLine": figures.TimeLine,
        "others_said": others_said,
        "render_timeline": render_timeline,
    }
    return environment


def _call(macro: str, *values: Any) -> Markup:
    """Render a macro of `parts.html` or, as `bodies.NAME`, of `bodies.html`."""
    file, _, name = macro.rpartition(".")
    module = _templates().get_template(f"{file or 'parts'}.html").module
    return Markup(getattr(module, name)(*values))


def encode_picture(image: np.ndarray) -> str:
    """Return (H, W, 3) uint8 RGB as a `data:` URL of a JPEG."""
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


# ---- parts --------------------------------------------------------------------------------------


def render_style(dark: str | None = None) -> Markup:
    """Return the style element, which a page needs once.

    `dark` is a selector that matches a dark page, such as `.dark`; None: the reader's setting.
    """
    css = _templates().get_template("style.css").render(dark=dark)
    return Markup("<style>{}</style>").format(Markup(css))


def wrap_parts(*parts: str) -> Markup:
    """Return the parts inside the styled element; plain text is escaped."""
    return _call("wrap", parts)


def render_bars(
    values: Sequence[tuple[str, float]], before: Mapping[str, float] | None = None
) -> Markup:
    """Return a bar from 0 to 1 per name, with a dashed mark at its value in `before`."""
    return _call("bars", values, before)


def render_notes(notes: Sequence[str]) -> Markup:
    """Return the sentences that must be shown with the numbers."""
    return _call("notes", notes)


def render_summary(prediction: VideoPrediction) -> Markup:
    """Return the intensities with their notes, or the error."""
    return _call("summary", prediction)


def render_strip(prediction: VideoPrediction) -> Markup:
    """Return the film strip; empty if there is none."""
    return _call("strip", prediction)


def render_timeline(prediction: VideoPrediction) -> Markup:
    """Return the affect over time, and the frames that contributed to the result."""
    if prediction.frames.empty:
        return Markup("")
    return _call("timeline", prediction)


# ---- pages --------------------------------------------------------------------------------------


def report_page(predictions: Sequence[VideoPrediction]) -> str:
    """Return a page with a section per clip; raises ValueError without predictions."""
    if not predictions:
        raise ValueError("a report needs at least one prediction")
    clips: dict[str, list[VideoPrediction]] = {}
    for prediction in predictions:
        clips.setdefault(prediction.file, []).append(prediction)
    title = _clip_name(predictions[0]) if len(clips) == 1 else f"{len(clips)} clips"
    return page_of(title, [clip_section(people) for people in clips.values()])


def notebook_output(prediction: VideoPrediction) -> str:
    """Return a person's part of the page as an element for a notebook, in its light or dark."""
    dark = ":is([data-jp-theme-light=false],.vscode-dark,[theme=dark])"  # Jupyter, VS Code, Colab
    return Markup("").join((render_style(dark), wrap_parts(clip_section([prediction]))))


def page_of(title: str, sections: Sequence[str]) -> str:
    """Return the page of sections from `clip_section`."""
    return _render_page(title, Markup("").join(map(Markup, sections)), "58em")


def clip_section(people: Sequence[VideoPrediction]) -> str:
    """Return the section of a page about the people of one clip, at least one."""
    return _call("bodies.section", _clip_name(people[0]), people)


def comparison_page(one: VideoPrediction, other: VideoPrediction) -> str:
    """Return a page of two clips side by side, or one below the other if narrow.

    Raises ValueError if the clips have different targets.
    """
    figures.check_comparable(one, other)
    names = pair_names(one, other)
    body = _call("bodies.pair", list(zip(names, (one, other), strict=True)))
    return _render_page(" and ".join(names), body, "90em")


def pair_names(one: VideoPrediction, other: VideoPrediction) -> tuple[str, str]:
    """Return the names of two clips, with their folders if the names are equal."""
    names = _clip_name(one), _clip_name(other)
    return names if names[0] != names[1] else (shown(one.file), shown(other.file))


def others_said(prediction: VideoPrediction) -> str | None:
    """Return a sentence that the clip shows other people too; None if it does not."""
    if prediction.people < 2:
        return None
    return f"{prediction.people} people were seen; this is who is in most frames"


def write_page(page: str, path: str | os.PathLike[str]) -> Path:
    """Write a page atomically; raises ValueError unless the suffix is .html or .htm."""
    path = Path(path)
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise ValueError(f"{path}: a page is written as .html; got {path.suffix or 'no ending'!r}")
    write_text(path, page)
    return path


def _clip_name(prediction: VideoPrediction) -> str:
    return shown(Path(prediction.file).name)


def _render_page(title: str, body: Markup, width: str) -> str:
    template = _templates().get_template("page.html")
    return template.render(title=title, style=render_style(), width=width, body=body)
