"""Draw walk.svg, the walk of a video through eight hops: `python docs/draw_walk.py`."""

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, BOX, GAP, MARGIN, LEGEND = 520, 76, 42, 16, 72
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
CODE, CENTRED = f'font-family="{MONO}"', 'text-anchor="middle"'
RINGS = {
    "outside": ("#eaeef2", "#57606a", "words, paths, tables"),
    "data": ("#ddf4ff", "#0969da", "files, video, faces"),
    "model": ("#fff1cf", "#9a6700", "tensors alone: what a Hub repository holds"),
}
"""Fill, line and meaning of each colour."""


@dataclass(frozen=True)
class Hop:
    """One box: the function or class, its file, what it does, and what it passes on."""

    ring: str
    name: str
    place: str
    does: str
    hands_on: str


HOPS = (
    Hop(
        "outside",
        "mma-mrnnet predict clip.mp4",
        "cli/predict.py",
        "or a notebook, a pipeline, the Space",
        "a path",
    ),
    Hop(
        "outside",
        "predict_video",
        "prediction/video.py",
        "makes the hops below, a line each",
        "a path, a frame rate",
    ),
    Hop(
        "data",
        "read_frames",
        "video/reading.py",
        "decodes; picks frames by their time",
        "frames (height, width, 3), one by one",
    ),
    Hop(
        "data",
        "crop_faces",
        "faces/tracks.py",
        "finds, follows and aligns faces",
        "crops (112, 112, 3); no face: an empty row",
    ),
    Hop(
        "model",
        "MMAModel",
        "model/modeling_mma.py",
        "stage 1: what each face shows",
        "26 numbers a frame: also the frames' table",
    ),
    Hop(
        "model",
        "MMAMRNNetVideoProcessor.pad",
        "model/video_processing_mma_mrnnet.py",
        "2 frames a second: thins above 30, pads below",
        "affect (1, 30, 26), frame_mask (1, 30)",
    ),
    Hop(
        "model",
        "MMAMRNNetForIntensity",
        "model/modeling_mma_mrnnet.py",
        "stage 2: takes affect, or crops by way of hop 5",
        "the frames' affect and the mask",
    ),
    Hop(
        "model",
        "MaskedRNN",
        "model/masked_rnn.py",
        "a GRU reads the frames; padding is masked out",
        "back in 7: dense layer, calibration",
    ),
)
RESULT = "7 intensities in [0, 1] and the frames' table"


def draw_text(x: float, y: float, words: str, size: int, color: str, more: str = "") -> str:
    """Draw one line of text; `more` are further attributes, such as a font."""
    more = more if "font-family" in more else f'font-family="{SANS}" {more}'.rstrip()
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" {more}>{escape(words)}</text>'


def draw_rectangle(x: float, y: float, width: float, height: float, more: str) -> str:
    """Draw a rectangle; `more` are its colours and corners."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" {more}/>'


def draw_box(number: int, hop: Hop, top: int) -> list[str]:
    """Draw a hop, and the arrow to the next one with what is passed on."""
    fill, line, _ = RINGS[hop.ring]
    left, middle, below = MARGIN + 58, MARGIN + 30, top + BOX
    frame = f'rx="10" fill="{fill}" stroke="{line}" stroke-width="1.5"'
    arrow = f"M{middle} {below + 3}v{GAP - 14}m-6 -6l6 8l6 -8"
    number_y = top + BOX / 2
    return [
        draw_rectangle(MARGIN, top, WIDTH - 2 * MARGIN, BOX, frame),
        f'<circle cx="{middle}" cy="{number_y}" r="17" fill="{line}"/>',
        draw_text(middle, number_y + 7, str(number), 19, "#ffffff", CENTRED),
        draw_text(left, top + 24, hop.name, 18, "#1f2328", f'{CODE} font-weight="bold"'),
        draw_text(left, top + 45, hop.does, 17, "#1f2328"),
        draw_text(left, top + 65, hop.place, 14, "#57606a", CODE),
        f'<path d="{arrow}" fill="none" stroke="#57606a" stroke-width="2.5"/>',
        draw_text(left, below + GAP / 2 + 6, hop.hands_on, 16, "#424a53", 'font-style="italic"'),
    ]


def draw_picture() -> str:
    """Draw the whole SVG; its white ground serves dark pages too."""
    bottom = MARGIN + LEGEND + len(HOPS) * (BOX + GAP)
    height = bottom + 44 + MARGIN
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>The walk of a video through eight hops, from a path to seven intensities</title>",
        draw_rectangle(0, 0, WIDTH, height, 'rx="12" fill="#ffffff"'),
    ]
    for row, (fill, line, meaning) in enumerate(RINGS.values()):
        y = MARGIN + 20 * row
        parts.append(draw_rectangle(MARGIN, y, 16, 14, f'rx="3" fill="{fill}" stroke="{line}"'))
        parts.append(draw_text(MARGIN + 24, y + 13, meaning, 15, "#424a53"))
    for number, hop in enumerate(HOPS, start=1):
        parts += draw_box(number, hop, MARGIN + LEGEND + (number - 1) * (BOX + GAP))
    parts += [
        draw_rectangle(MARGIN, bottom, WIDTH - 2 * MARGIN, 44, 'rx="10" fill="#1f2328"'),
        draw_text(WIDTH / 2, bottom + 28, RESULT, 17, "#ffffff", CENTRED),
        "</svg>\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("walk.svg").write_text(draw_picture(), encoding="utf-8")
