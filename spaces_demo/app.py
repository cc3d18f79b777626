"""The Gradio Space: a clip, or a camera, in; seven intensities and how they came about out.

`python spaces_demo/app.py` runs it. What draws is `mma_mrnnet.report`'s, what reads the package's.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")

import gradio as gr
import numpy as np
import pandas as pd

from mma_mrnnet import predict_people
from mma_mrnnet.prediction import VideoPrediction, default_checkpoint, write_table
from mma_mrnnet.prediction.streaming import LiveEstimate, LiveReader
from mma_mrnnet.report import figures, page
from mma_mrnnet.video.reading import VideoError, measure_video

LONGEST_S = 120
MOST_FRAMES = 60 * LONGEST_S
LARGEST_FRAME = 4096 * 2304
"""Pixels: somewhat more than what phones record at most."""
LARGEST_MB = 100
KEPT_S = 9 * 60
"""Uploads and results are deleted this long after they were made, as seen every `CHECK_S`: within ten minutes."""
CHECK_S = 30
WAITING = 12
"""Visitors in the queue; the next one is told to come back."""
LIVE_MINUTES = 3
LIVE_VISITORS = 4
LAUNCH = {
    "ssr_mode": False,
    "max_file_size": f"{LARGEST_MB}mb",
    "run_history": False,  # gradio would keep every result in the visitor's browser
    "footer_links": ["api"],
}

LAYOUT = """
#people .grid-container{grid-template-columns:repeat(auto-fill,92px)!important;height:auto;
grid-auto-rows:92px!important}
#people .grid-wrap{height:auto;min-height:0}#people{min-height:0}
"""
"""The people's pictures stay small and whole, which the gallery's own settings do not do."""

HERE = Path(__file__).resolve().parent
EXAMPLES_LABEL = (
    "Examples, of a public-domain portrait: a smile comes and goes, the face leaves, two people"
)
EXAMPLES = sorted((HERE / "examples").glob("*.mp4"))

TEXT = """
# Seven reactions on a face

How strongly does a face show Adoration, Amusement, Anxiety, Disgust, Empathic Pain, Fear, Surprise? Upload or
record a short clip, pick an example, or let the camera run.

**These numbers measure nobody's feelings.** The model's extractor learnt from pseudo-labels, bent photos and
renders, its reactions from a *simulator*: it has never seen what a real person reported to feel.
"""

ABOUT = f"""
**What it learnt from.** Stage 1, the extractor, reads each face's valence-arousal, expressions and action units; it
learnt from photos labelled by another program (pseudo-labels), photos bent into other expressions, and renders. No
label was coded by a person. Stage 2, the recurrent part, learnt seven reactions from simulated faces in motion.
Nobody was recorded or asked.

**What it cannot know.** What anybody feels. Faces and feelings agree only loosely, people differ in what they show,
and this model was never tested on real reactions. Calm talkers and crying faces are easily misread. Nobody knows
for whom it errs more often: nothing was compared by age, gender, skin tone or culture.

**How to read the numbers.** They are relative within the clip: in the training labels the strongest reaction of a
clip was 1, however faint. Two clips, or two people, do not compare.

**What it must not be used for.** To judge people, at work, in education, at a border, in health or anywhere else.
In the European Union emotion recognition at work and in education is prohibited (AI Act, Article 5(1)(f)).

**What happens to your clip.** It is analysed on this server and sent nowhere else. Files made on the way are gone
at once; the upload and the results are deleted within ten minutes, what is held in memory as soon as you close the
page. Camera frames of the live tab are read and let go, never written to a file. Clips may be {LONGEST_S} seconds
long, {LARGEST_MB} MB large and have {MOST_FRAMES} frames; one is analysed at a time, and {WAITING} may wait.
{LIVE_VISITORS} cameras are read at a time, each for {LIVE_MINUTES} minutes.

The method is MMA-MRNNet ([arXiv 2303.00180](https://arxiv.org/abs/2303.00180)); this is an independent
implementation.
"""


@dataclass
class Results:
    """What one visitor's last clip came to, kept so that another person in it may be chosen.

    A program gets everybody at once, and nothing is kept; the session still is, so that it is forgotten in time.
    """

    session: str | None
    people: list[VideoPrediction]


@dataclass
class Live:
    """One visitor's camera: what reads it."""

    session: str | None
    reader: LiveReader


def analyse(clip: str | None, neutral: bool, request: gr.Request) -> Iterator[tuple]:
    """Yields once: what the page shows of the clip, its first person chosen.

    Gradio copies the files into its own cache, which it empties, before this goes on and deletes the originals.

    Args:
        clip: the uploaded file; None where there is none.
        neutral: calibrate by the quietest stretch of the clip.
        request: the visit.

    Raises:
        gr.Error: no clip, too large a one, no video, no face; the words are the user's to read.
    """
    people = _predicted(clip, neutral)
    with tempfile.TemporaryDirectory() as folder:
        yield *_shown(people, 0, Path(folder)), Results(request.session_hash, people)


def numbers_of(clip: str | None, neutral: bool, request: gr.Request) -> tuple[list[dict], Results]:
    """All numbers of everybody in a clip, as `as_numbers`; errors as `analyse`."""
    return [as_numbers(each) for each in _predicted(clip, neutral)], Results(
        request.session_hash, []
    )


def _predicted(clip: str | None, neutral: bool) -> list[VideoPrediction]:
    if clip is None:
        raise gr.Error("Upload or record a clip first.", print_exception=False)
    if not Path(clip).is_file():
        raise gr.Error(
            "This clip was deleted in the meantime. Upload it again.", print_exception=False
        )
    try:
        _refuse_large(clip)
        people = predict_people(clip, neutral="auto" if neutral else None)
    except VideoError as error:
        reason = str(error).removeprefix(f"{clip}: ")
        raise gr.Error(
            f"This file cannot be read as a video: {reason}", print_exception=False
        ) from error
    if all(each.error is not None for each in people):
        raise gr.Error(f"{people[0].error[0].upper()}{people[0].error[1:]}.", print_exception=False)
    return people[: max(people[0].people, 1)]


def choose(results: Results | None, selection: gr.SelectData) -> Iterator[tuple]:
    """Yields once: what the page shows of the person whose picture was clicked."""
    if results is None or not results.people:
        raise gr.Error(
            "The results of this clip were deleted. Analyse it again.", print_exception=False
        )
    with tempfile.TemporaryDirectory() as folder:
        yield _shown(results.people, selection.index, Path(folder))


def _refuse_large(clip: str) -> None:
    """Raises what the visitor reads where a clip would keep everybody else waiting."""
    extent = measure_video(clip)
    faults = (
        (
            Path(clip).stat().st_size > LARGEST_MB * 1e6,
            f"is larger than {LARGEST_MB} MB, which is accepted",
        ),
        (
            extent.duration_s > LONGEST_S + 0.5,
            f"is {extent.duration_s:.0f} s long; here {LONGEST_S} s are accepted",
        ),
        (
            extent.packets > MOST_FRAMES,
            f"has {extent.packets} frames; here {MOST_FRAMES} are accepted",
        ),
        (
            extent.width * extent.height > LARGEST_FRAME,
            f"has frames of {extent.width} x {extent.height}; here up to 4096 x 2304 pixels are accepted",
        ),
    )
    for holds, words in faults:
        if holds:
            raise gr.Error(
                f"This clip {words}. Cut it, or run the package yourself.", print_exception=False
            )


def _shown(people: list[VideoPrediction], chosen: int, folder: Path) -> tuple:
    """Summary, film strip, time lines, the people to choose from, and both files."""
    prediction = people[chosen]
    seen = f"A face in {prediction.frames_with_face} of {prediction.frames_sampled} frames, {prediction.duration_s:.1f} s."
    if len(people) > 1:
        seen += f" Person {chosen + 1} of {len(people)}; click a picture for another one."
    thumbnails = [(_picture(each), f"person {each.track + 1}") for each in people]
    table, numbers = folder / "frames.csv", folder / "result.json"
    write_table(prediction.frames.drop(columns="file"), table)
    numbers.write_text(json.dumps(as_numbers(prediction), indent=1), encoding="utf-8")
    return (
        figures.wrapped(f"<p>{escape(seen)}</p>", page.summary_parts(prediction)),
        figures.wrapped(page.strip_parts(prediction)),
        figures.wrapped(page.timeline_parts(prediction)),
        gr.Gallery(thumbnails, visible=len(people) > 1, selected_index=chosen),
        gr.DownloadButton(value=str(table), visible=True),
        gr.DownloadButton(value=str(numbers), visible=True),
    )


def _picture(prediction: VideoPrediction) -> np.ndarray:
    """The face to click on; grey where none was kept, so that every person keeps their place in the gallery."""
    shot = prediction.thumbnail
    return np.full((112, 112, 3), 128, np.uint8) if shot is None else shot.crop


def as_numbers(prediction: VideoPrediction) -> dict:
    """All of a prediction but its pictures, as strict JSON can hold it."""
    summary = pd.DataFrame([prediction.summary()]).drop(columns=["file", *prediction.intensities])
    return {
        "intensities": {
            name: None if math.isnan(value) else value
            for name, value in prediction.intensities.items()
        },
        **_records(summary)[0],
        "constant": prediction.constant,
        "moments": _records(prediction.moments),
        "running": _records(prediction.running),
        "frames": _records(prediction.frames.drop(columns="file")),
    }


def _records(table: pd.DataFrame) -> list[dict]:
    return json.loads(table.to_json(orient="records", double_precision=6))


def watch(
    image: np.ndarray | None, live: Live | None, request: gr.Request
) -> tuple[Live | None, str | dict]:
    """Takes a camera frame; the visitor's reader and the chart, which changes only where the frame was due.

    A frame's time is when it came, so that a slow line shows in the axis of time and not as another clip.
    """
    if image is None:
        return live, gr.skip()
    live = live or Live(request.session_hash, LiveReader(*default_checkpoint()))
    estimate = live.reader.add(np.ascontiguousarray(image[..., :3]), time.monotonic())
    return live, gr.skip() if estimate is None else live_chart(estimate, live.reader.notes())


def live_chart(estimate: LiveEstimate, notes: list[str]) -> str:
    """The intensities in an order that stays, and what the last frame showed."""
    if estimate.frames_in_window == 0:
        return figures.wrapped("<p>No face yet.</p>")
    faces = f"{estimate.frames_in_window} frames with a face in the last seconds."
    shown = "No face in this frame." if estimate.affect is None else _strongest(estimate.affect)
    crop = ""
    if estimate.crop is not None:
        picture = f'<img alt="the face" src="{figures.picture_source(estimate.crop)}">'
        crop = f'<div class="mma-strip"><figure>{picture}</figure></div>'
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    bars = figures.bars(list(estimate.intensities.items()))
    return figures.wrapped(
        bars, f"<p>{faces} {escape(shown)}</p>", crop, f'<div class="mma-notes">{said}</div>'
    )


def _strongest(affect: dict[str, float]) -> str:
    """`happiness 0.98, AU12 0.95, AU25 0.90` of one frame."""
    probabilities = {
        name: value
        for name, value in affect.items()
        if name not in ("valence", "arousal", "neutral")
    }
    top = sorted(probabilities.items(), key=lambda item: item[1], reverse=True)[:4]
    return (
        "This frame: "
        + (", ".join(f"{name} {value:.2f}" for name, value in top if value >= 0.3) or "neutral")
        + "."
    )


def build(kept_s: float = KEPT_S, check_every_s: float = CHECK_S) -> gr.Blocks:
    """The page.

    Args:
        kept_s: uploads and results are deleted this long after they were made ...
        check_every_s: ... as seen this often.
    """
    with gr.Blocks(
        title="Seven reactions on a face", delete_cache=(check_every_s, kept_s)
    ) as blocks:

        def forget(session: str | None) -> None:
            """Drops all that gradio holds of a visit: states, and the page's last contents with the faces in them.

            Left alone, gradio keeps the states of a closed page for an hour, and the contents for good.
            """
            blocks.state_holder.session_data.pop(session, None)
            blocks.state_holder.time_last_used.pop(session, None)

        def left(request: gr.Request) -> None:
            forget(request.session_hash)

        def expired(value: Results | Live | None) -> None:
            forget(None if value is None else value.session)

        gr.HTML(f"{figures.style('.dark')}<style>{LAYOUT}</style>")
        gr.Markdown(TEXT)
        with gr.Tab("A clip"):
            _clip_tab(gr.State(time_to_live=kept_s, delete_callback=expired))
        with gr.Tab("Live"):
            _live_tab(gr.State(time_to_live=kept_s, delete_callback=expired))
        with gr.Tab("About"):
            gr.Markdown(ABOUT)
        blocks.unload(left)
    return blocks.queue(max_size=WAITING)


def _clip_tab(results: gr.State) -> None:
    with gr.Row():
        with gr.Column():
            # Audio is left in: taking it out needs the ffmpeg program, and nothing here listens.
            clip = gr.Video(
                sources=["upload", "webcam"], include_audio=True, label="Clip", height=380
            )
            neutral = gr.Checkbox(
                label="Calibrate by the quietest stretch of the clip (the person's own neutral)",
                info="Takes out what the face shows when it rests; a mark shows each intensity without it. "
                "No model was trained with it.",
            )
            button = gr.Button("Analyse", variant="primary")
            if EXAMPLES:
                gr.Examples([[str(path)] for path in EXAMPLES], clip, label=EXAMPLES_LABEL)
        with gr.Column():
            summary = gr.HTML()
            gallery = gr.Gallery(
                label="People in this clip",
                visible=False,
                elem_id="people",
                height="auto",
                allow_preview=False,
                object_fit="contain",
            )
            with gr.Row():
                table = gr.DownloadButton("Every frame (CSV)", visible=False)
                numbers = gr.DownloadButton("Everything (JSON)", visible=False)
    strip = gr.HTML()
    timeline = gr.HTML()
    outputs = [summary, strip, timeline, gallery, table, numbers]
    button.click(
        analyse,
        [clip, neutral],
        [*outputs, results],
        api_name="show",
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="clip",
    )
    # What programs call: no page, the numbers of everybody.
    gr.Button(visible=False).click(
        numbers_of,
        [clip, neutral],
        [gr.JSON(visible=False, label="people"), results],
        api_name="analyse",
        concurrency_limit=1,
        concurrency_id="clip",
    )
    gallery.select(choose, results, outputs, api_visibility="private", concurrency_limit=2)


def _live_tab(live: gr.State) -> None:
    gr.Markdown(
        "Allow the camera and press record: two frames a second are read, the chart follows. After "
        f"{LIVE_MINUTES} minutes it stops by itself. Frames are read on this server and let go; nothing is written."
    )
    with gr.Row():
        with gr.Column():  # columns are what a narrow window puts below each other
            camera = gr.Image(sources=["webcam"], streaming=True, type="numpy", label="Camera")
            again = gr.Button("Start over")
        with gr.Column():
            chart = gr.HTML()
    camera.stream(
        watch,
        [camera, live],
        [live, chart],
        stream_every=0.25,
        time_limit=60 * LIVE_MINUTES,
        concurrency_limit=LIVE_VISITORS,
        show_progress="hidden",
        api_visibility="private",
    )
    again.click(lambda: (None, ""), None, [live, chart], api_visibility="private")


if __name__ == "__main__":
    default_checkpoint()
    build().launch(**LAUNCH)
