"""The Gradio Space: a clip in, seven intensities and the frames' affect out; `python spaces_demo/app.py` runs it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")

import gradio as gr
import pandas as pd

from mma_mrnnet import predict_video
from mma_mrnnet.data.video import VideoError
from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.prediction import default_checkpoint, write_table

TEXT = """
# Seven reactions on a face

Upload or record a short clip of one person's face. **What the model learnt from:** its extractor from pseudo-labels,
bent photos and renders, its reactions from a *simulator*. It has never seen what a real person reported to feel, so the
numbers show how the method behaves and are **no measurement of anybody's feelings**. They are relative within the clip:
in the training labels the strongest reaction of a clip was 1, however faint.
Do not use it to judge people, at work or in education.
Your clip is analysed on this server; it and its results are deleted after ten minutes.
"""


def analyse(path: str | None) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, str, str]]:
    """Yields once: chart data, timeline data, a sentence, and the frames' table of one clip.

    Gradio copies the table into its own cache, which it empties, before this goes on and deletes the original.

    Args:
        path: the uploaded file; None where there is none.

    Raises:
        gr.Error: no clip, no video, no face; the words are the user's to read.
    """
    if path is None:
        raise gr.Error("Upload or record a clip first.", print_exception=False)
    try:
        prediction = predict_video(path)
    except VideoError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise gr.Error(f"This file cannot be read as a video: {reason}", print_exception=False) from error
    if prediction.error is not None:
        raise gr.Error(prediction.error, print_exception=False)
    rows = prediction.ranked() if prediction.calibrated else prediction.intensities.items()
    bars = pd.DataFrame(rows, columns=["reaction", "intensity"])
    timeline = prediction.frames.melt("time_s", ["valence", "arousal", *EXPRESSIONS], "channel", "value").dropna()
    sentence = (
        f"A face in {prediction.frames_with_face} of {prediction.frames_sampled} frames, {prediction.duration_s:.1f} s."
        f" {prediction.warning or ''} Prior only (never labelled): {', '.join(prediction.prior_only) or 'none'}."
    )
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "frames.csv"
        write_table(prediction.frames.drop(columns="file"), table)
        yield bars, timeline, sentence, str(table)


def build() -> gr.Blocks:
    """The page; uploads and results are deleted ten minutes after they were made."""
    with gr.Blocks(title="MMA-MRNNet", delete_cache=(60, 600)) as page:
        gr.Markdown(TEXT)
        with gr.Row():
            with gr.Column():
                # Audio is left in: taking it out needs the ffmpeg program, and nothing here listens.
                clip = gr.Video(sources=["upload", "webcam"], include_audio=True, label="clip")
                button = gr.Button("Analyse", variant="primary")
            with gr.Column():
                bars = gr.BarPlot(
                    x="reaction",
                    y="intensity",
                    y_lim=[0, 1],
                    sort="-y",
                    label="intensities, simulated training labels, relative within the clip",
                )
                sentence = gr.Markdown()
        timeline = gr.LinePlot(x="time_s", y="value", color="channel", label="affect over time")
        table = gr.File(label="every frame, as CSV")
        button.click(analyse, clip, [bars, timeline, sentence, table], api_name="analyse", concurrency_limit=1)
    return page.queue(max_size=8)


if __name__ == "__main__":
    default_checkpoint()
    build().launch(ssr_mode=False)
