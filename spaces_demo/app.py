"""The Gradio Space: seven intensities and their evidence, from a clip or a camera.

Run `python spaces_demo/app.py`. The package reads clips; `mma_mrnnet.report` draws.
"""

import base64
import contextlib
import io
import json
import math
import os
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")
# A separate folder: all old files in it are deleted, including those of earlier runs.
os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir()) / "mma-mrnnet-space"))

import gradio as gr
import numpy as np
import pandas as pd
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from markupsafe import Markup
from PIL import Image

from mma_mrnnet import predict_people
from mma_mrnnet.prediction import VideoPrediction, default_checkpoint, write_table
from mma_mrnnet.prediction.streaming import LiveEstimate, LiveReader
from mma_mrnnet.report import page
from mma_mrnnet.video.reading import VideoError, measure_video
from mma_mrnnet.video.sources import open_video

LONGEST_S = 120
MOST_FRAMES = 60 * LONGEST_S
LARGEST_FRAME = 4096 * 2304
"""Pixels: a little more than any phone records."""
LARGEST_MB = 100
KEPT_S = 9 * 60
"""Uploads and results older than this are deleted every `CHECK_S`: within ten minutes."""
CHECK_S = 30
MOST_STORED_MB = 20 * LARGEST_MB
"""All uploads and results together; beyond that the oldest are deleted, whatever their age."""
SWEEP_S = 5
WAITING = 12
"""Visitors in the queue; the next one is told to come back later."""
LIVE_MINUTES = 3
LIVE_VISITORS = 4
LAUNCH = {
    "ssr_mode": False,
    "max_file_size": f"{LARGEST_MB}mb",
    "run_history": False,  # or gradio keeps every result in the visitor's browser
    "footer_links": ["api"],
}

LAYOUT = """
#people .grid-container{grid-template-columns:repeat(auto-fill,92px)!important;height:auto;
grid-auto-rows:92px!important}
#people .grid-wrap{height:auto;min-height:0}#people{min-height:0}
"""
"""Keeps the people's pictures small and whole, which the gallery has no setting for."""

HERE = Path(__file__).resolve().parent
EXAMPLES_LABEL = (
    "Examples, of a public-domain portrait: a smile comes and goes, the face leaves, two people"
)
EXAMPLES = sorted((HERE / "examples").glob("*.mp4"))

TEXT = """
# Seven reactions on a face

How strongly does a face show Adoration, Amusement, Anxiety, Disgust, Empathic Pain, Fear,
Surprise? Upload or record a short clip, pick an example, or let the camera run.

**These numbers measure nobody's feelings.** The model's extractor learnt from pseudo-labels,
bent photos and renders, its reactions from a *simulator*: it has never seen what a real person
reported to feel.
"""

ABOUT = f"""
**What it learnt from.** Stage 1, the extractor, reads each face's valence-arousal, expressions
and action units; it learnt from photos labelled by another program (pseudo-labels), photos bent
into other expressions, and renders. No label was coded by a person. Stage 2, the recurrent
part, learnt seven reactions from simulated faces in motion. Nobody was recorded or asked.

**What it cannot know.** What anybody feels. Faces and feelings agree only loosely, people
differ in what they show, and this model was never tested on real reactions. Calm talkers and
crying faces are easily misread. Nobody knows for whom it errs more often: nothing was compared
by age, gender, skin tone or culture.

**How to read the numbers.** They are relative within the clip: in the training labels the
strongest reaction of a clip was 1, however faint. Two clips, or two people, do not compare.

**What it must not be used for.** To judge people, at work, in education, at a border, in health
or anywhere else. In the European Union emotion recognition at work and in education is
prohibited (AI Act, Article 5(1)(f)).

**What happens to your clip.** It is analysed on this server and sent nowhere else. Files made
on the way are gone at once; the upload and the results are deleted within ten minutes, what is
held in memory as soon as you close the page. Camera frames of the live tab are read and let go,
never written to a file. Clips may be {LONGEST_S} seconds long, {LARGEST_MB} MB large and have
{MOST_FRAMES} frames; one is analysed at a time, and {WAITING} may wait. {LIVE_VISITORS} cameras
are read at a time, each for {LIVE_MINUTES} minutes.

The method is MMA-MRNNet ([arXiv 2303.00180](https://arxiv.org/abs/2303.00180)); this is an
independent implementation.
"""


@dataclass
class Results:
    """The people of a visitor's last clip, kept so that the visitor can choose another one.

    A program gets everybody at once; then only the session is kept, so that it can be forgotten.
    """

    session: str | None
    people: list[VideoPrediction]


@dataclass
class Live:
    """The reader of one visitor's camera."""

    session: str | None
    reader: LiveReader


def analyse(clip: str | None, neutral: bool, request: gr.Request) -> Iterator[tuple]:
    """Yield once: the page's contents for a clip, with its first person chosen.

    A generator, because Gradio copies the files into its cache before the code after the yield
    deletes the originals. `neutral`: calibrate with the calmest stretch of the clip.

    Raises:
        gr.Error: no clip, a clip that is too large or not a video, or no face; the message is
            for the visitor.
    """
    people = predict_clip(clip, neutral)
    with tempfile.TemporaryDirectory() as folder:
        yield *show_person(people, 0, Path(folder)), Results(request.session_hash, people)


def return_numbers(
    clip: str | None, neutral: bool, request: gr.Request
) -> tuple[list[dict], Results]:
    """Return all numbers of everybody in a clip; errors as in `analyse`."""
    people = predict_clip(clip, neutral)
    return [as_numbers(each) for each in people], Results(request.session_hash, [])


def choose(results: Results | None, selection: gr.SelectData) -> Iterator[tuple]:
    """Yield once: the page's contents for the person whose picture was clicked."""
    if results is None or not results.people:
        raise refusal("The results of this clip were deleted. Analyse it again.")
    with tempfile.TemporaryDirectory() as folder:
        yield show_person(results.people, selection.index, Path(folder))


def refusal(message: str) -> gr.Error:
    """Return an error that is shown to the visitor and not logged."""
    return gr.Error(message, print_exception=False)


def predict_clip(clip: str | None, neutral: bool) -> list[VideoPrediction]:
    """Predict everybody except people seen only briefly; errors as in `analyse`."""
    if clip is None:
        raise refusal("Upload or record a clip first.")
    if not Path(clip).is_file():
        raise refusal("This clip was deleted in the meantime. Upload it again.")
    try:
        refuse_large(clip)
        with open_video(clip, max_pixels=LARGEST_FRAME) as opened:
            people = predict_people(opened, neutral="auto" if neutral else None)
    except VideoError as error:
        reason = str(error).removeprefix(f"{clip}: ")
        raise refusal(f"This file cannot be read as a video: {reason}") from error
    if all(each.error is not None for each in people):
        reason = people[0].error or ""
        raise refusal(f"{reason[:1].upper()}{reason[1:]}.")
    return people[: max(people[0].people, 1)]


def refuse_large(clip: str) -> None:
    """Raise an error for a clip over the limits of the Space."""
    extent = measure_video(clip)
    size = f"{extent.width} x {extent.height}"
    faults = {
        f"is larger than {LARGEST_MB} MB, which is accepted": (
            Path(clip).stat().st_size > LARGEST_MB * 1e6
        ),
        f"is {extent.duration_s:.0f} s long; here {LONGEST_S} s are accepted": (
            extent.duration_s > LONGEST_S + 0.5
        ),
        f"has {extent.packets} frames; here {MOST_FRAMES} are accepted": (
            extent.packets > MOST_FRAMES
        ),
        f"has frames of {size}; here up to 4096 x 2304 pixels are accepted": (
            extent.width * extent.height > LARGEST_FRAME
        ),
    }
    for fault, is_true in faults.items():
        if is_true:
            raise refusal(f"This clip {fault}. Cut it, or run the package yourself.")


def show_person(people: list[VideoPrediction], chosen: int, folder: Path) -> tuple:
    """Return summary, film strip, timelines, the people to choose from, and both files."""
    prediction = people[chosen]
    faces, frames = prediction.frames_with_face, prediction.frames_sampled
    line = f"A face in {faces} of {frames} frames, {prediction.duration_s:.1f} s."
    if len(people) > 1:
        line += f" Person {chosen + 1} of {len(people)}; click a picture for another one."
    pictures = [(picture_of(each), f"person {each.track + 1}") for each in people]
    table, numbers = folder / "frames.csv", folder / "result.json"
    write_table(prediction.frames.drop(columns="file"), table)
    numbers.write_text(json.dumps(as_numbers(prediction), indent=1), encoding="utf-8")
    return (
        page.wrap_parts(paragraph(line), page.render_summary(prediction)),
        page.wrap_parts(page.render_strip(prediction)),
        page.wrap_parts(page.render_timeline(prediction)),
        gr.Gallery(pictures, visible=len(people) > 1, selected_index=chosen),
        gr.DownloadButton(value=str(table), visible=True),
        gr.DownloadButton(value=str(numbers), visible=True),
    )


def picture_of(prediction: VideoPrediction) -> np.ndarray:
    """Return the face to click on; grey if there is none, so that positions do not change."""
    face = prediction.thumbnail
    return np.full((112, 112, 3), 128, np.uint8) if face is None else face.crop


def paragraph(text: str) -> Markup:
    """Return a paragraph of plain text."""
    return Markup("<p>{}</p>").format(text)


def as_numbers(prediction: VideoPrediction) -> dict:
    """Return a prediction without its pictures, as strict JSON values."""
    summary = pd.DataFrame([prediction.summary()]).drop(columns=["file", *prediction.intensities])
    return {
        "intensities": {
            name: None if math.isnan(value) else value
            for name, value in prediction.intensities.items()
        },
        **as_records(summary)[0],
        "constant": prediction.constant,
        "moments": as_records(prediction.moments),
        "running": as_records(prediction.running),
        "frames": as_records(prediction.frames.drop(columns="file")),
    }


def as_records(table: pd.DataFrame) -> list[dict]:
    """Return a dict per row; None for NaN."""
    return json.loads(table.to_json(orient="records", double_precision=6))


def watch(
    image: np.ndarray | None, live: Live | None, request: gr.Request
) -> tuple[Live | None, str | dict]:
    """Read a camera frame; return the visitor's reader, and the chart if the frame was due.

    A frame's time is its arrival, so a slow connection shows on the time axis.
    """
    if image is None:
        return live, gr.skip()
    live = live or Live(request.session_hash, LiveReader(*default_checkpoint()))
    estimate = live.reader.add(np.ascontiguousarray(image[..., :3]), time.monotonic())
    return live, gr.skip() if estimate is None else live_chart(estimate, live.reader.notes())


def live_chart(estimate: LiveEstimate, notes: list[str]) -> str:
    """Return the intensities in a fixed order, and the affect of the last frame."""
    if estimate.frames_in_window == 0:
        return page.wrap_parts(paragraph("No face yet."))
    line = f"{estimate.frames_in_window} frames with a face in the last seconds. "
    line += "No face in this frame." if estimate.affect is None else name_strongest(estimate.affect)
    face = ""
    if estimate.crop is not None:
        image = '<div class="mma-strip"><figure><img alt="the face" src="{}"></figure></div>'
        face = Markup(image).format(page.encode_picture(estimate.crop))
    bars = page.render_bars(list(estimate.intensities.items()))
    return page.wrap_parts(bars, paragraph(line), face, page.render_notes(notes))


def name_strongest(affect: dict[str, float]) -> str:
    """Return `This frame: happiness 0.98, AU12 0.95, AU25 0.90.`."""
    scores = {
        name: value
        for name, value in affect.items()
        if name not in ("valence", "arousal", "neutral") and value >= 0.3
    }
    top = sorted(scores.items(), key=lambda item: item[1], reverse=True)[:4]
    return f"This frame: {', '.join(f'{name} {value:.2f}' for name, value in top) or 'neutral'}."


def make_camera() -> gr.Image:
    """Return a camera that checks the size of frames before decoding them."""
    camera = gr.Image(sources=["webcam"], streaming=True, type="numpy", label="Camera")
    decode = camera.preprocess

    def preprocess(payload: ImageData | None) -> np.ndarray | None:
        if payload is not None:
            refuse_large_picture(payload)
        return decode(payload)

    camera.preprocess = preprocess  # not a subclass: gradio would write a stub file for it
    return camera


def refuse_large_picture(payload: ImageData) -> None:
    """Raise an error if the header of a picture gives too many pixels."""
    source: str | io.BytesIO | None = payload.path
    if payload.url and payload.url.startswith("data:"):
        source = io.BytesIO(base64.b64decode(payload.url.partition(",")[2]))
    if source is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about large pictures
            with Image.open(source) as picture:
                width, height = picture.size
    except Image.DecompressionBombError as error:
        raise refusal("This picture is too large to be a camera's.") from error
    except OSError as error:
        raise refusal("This is no picture that can be read.") from error
    if width * height > LARGEST_FRAME:
        raise refusal(
            f"This picture is {width} x {height}; here up to 4096 x 2304 pixels are accepted."
        )


def sweep(folder: Path, kept_s: float, needed: Collection[str] = ()) -> None:
    """Delete files older than `kept_s`, then the oldest if there are too many, then empty folders.

    Needed because Gradio deletes only uploads that it finished receiving. Paths in `needed` stay.
    """
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gradio may have deleted it
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) and str(path) not in needed:
                found.append((status.st_mtime, status.st_size, path))
    room = MOST_STORED_MB * 1e6
    for changed_s, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0 or time.time() - changed_s > kept_s:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not empty
                if path.parent != folder:
                    path.parent.rmdir()


def keep_sweeping(blocks: gr.Blocks, kept_s: float, check_every_s: float) -> None:
    """Sweep the upload folder now, and then regularly in a thread."""
    folder = Path(get_upload_folder())

    def work() -> None:
        while True:
            components = list(blocks.blocks.values())
            sweep(folder, kept_s, set().union(*(each.keep_in_cache for each in components)))
            time.sleep(min(SWEEP_S, check_every_s))

    threading.Thread(target=work, daemon=True, name="sweep uploads").start()


def build(kept_s: float = KEPT_S, check_every_s: float = CHECK_S) -> gr.Blocks:
    """Return the page.

    Every `check_every_s` seconds, it deletes uploads and results older than `kept_s`.
    """
    with gr.Blocks(
        title="Seven reactions on a face", delete_cache=(check_every_s, kept_s)
    ) as blocks:

        def forget(session: str | None) -> None:
            """Drop what gradio holds of a visit: states and page contents, including faces.

            Otherwise gradio keeps states for an hour after a page closes, and contents forever.
            """
            blocks.state_holder.session_data.pop(session, None)
            blocks.state_holder.time_last_used.pop(session, None)

        def left(request: gr.Request) -> None:
            forget(request.session_hash)

        def expired(value: Results | Live | None) -> None:
            forget(None if value is None else value.session)

        gr.HTML(f"{page.render_style('.dark')}<style>{LAYOUT}</style>")
        gr.Markdown(TEXT)
        with gr.Tab("A clip"):
            _clip_tab(gr.State(time_to_live=kept_s, delete_callback=expired))
        with gr.Tab("Live"):
            _live_tab(gr.State(time_to_live=kept_s, delete_callback=expired))
        with gr.Tab("About"):
            gr.Markdown(ABOUT)
        blocks.unload(left)
    keep_sweeping(blocks, kept_s, check_every_s)
    return blocks.queue(max_size=WAITING)


def _clip_tab(results: gr.State) -> None:
    with gr.Row():
        with gr.Column():
            # Audio is kept but not used: removing it needs the ffmpeg program.
            clip = gr.Video(
                sources=["upload", "webcam"], include_audio=True, label="Clip", height=380
            )
            neutral = gr.Checkbox(
                label="Calibrate by the quietest stretch of the clip (the person's own neutral)",
                info="Takes out what the face shows when it rests; a mark shows each intensity "
                "without it. No model was trained with it.",
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
    # For programs: the numbers of everybody, without the page.
    gr.Button(visible=False).click(
        return_numbers,
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
        f"{LIVE_MINUTES} minutes it stops by itself. Frames are read on this server and let go; "
        "nothing is written."
    )
    with gr.Row():
        with gr.Column():  # a narrow window stacks columns
            camera = make_camera()
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
