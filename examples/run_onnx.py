"""The intensities of one clip, by an exported folder (`mma-mrnnet export --format onnx`); numpy and onnxruntime alone.

    python run_onnx.py crops.npy

The array holds one clip, sampled at the model's rate (`sampling_fps` of settings.json), in time order:

- (L, S, S, 3) uint8 RGB face crops, aligned as `mma-mrnnet crop` aligns them, of the model's size S; or
- (L, A) float, what is known of each frame, in the order of `input_names`; rows with a NaN (no face) are left out.

This file lies in the folder beside the models, and may be taken apart for a program of your own.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

CHUNK = 32  # crops that go through the extractor at once
FEW_FRAMES = 4  # 2 s: hardly a clip


def scaled(crops: np.ndarray, extractor: dict) -> np.ndarray:
    """(N, 3, S, S) float32 of (N, S, S, 3) uint8 RGB crops."""
    side = extractor["image_size"]
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (side, side, 3):
        raise ValueError(
            f"crops must be (L, {side}, {side}, 3) uint8 RGB; got {crops.shape} {crops.dtype}. They are not resized "
            "here: cut them at the model's size, from the picture"
        )
    mean, std = (np.array(extractor[name], np.float32) for name in ("image_mean", "image_std"))
    pixels = crops.astype(np.float32) * np.float32(extractor["rescale_factor"])
    return np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))


def affect_of(
    crops: np.ndarray, session: onnxruntime.InferenceSession, extractor: dict
) -> np.ndarray:
    """(L, A) float32: valence, arousal, expressions and action units of each crop."""
    pixel_values = (
        scaled(crops[start : start + CHUNK], extractor) for start in range(0, len(crops), CHUNK)
    )
    chunks = [session.run(["affect"], {"pixel_values": values})[0] for values in pixel_values]
    return np.concatenate([np.zeros((0, len(extractor["affect_names"])), np.float32), *chunks])


def kept_indices(length: int, most: int, policy: str) -> np.ndarray:
    """Which of a clip's frames stay where at most `most` may."""
    if policy == "truncate":
        return np.arange(min(length, most))
    if length == 0 or (policy == "thin" and length <= most):
        return np.arange(length)
    # Evenly spread from both ends, as PyTorch's linspace counts, so that halves are rounded to the same side.
    step, places = (length - 1) / max(most - 1, 1), np.arange(most)
    evenly = np.where(places < most // 2, step * places, length - 1 - step * (most - 1 - places))
    return np.zeros(1, int) if most == 1 else np.round(evenly).astype(int)


def padded(frames: np.ndarray, clips: dict) -> tuple[np.ndarray, np.ndarray]:
    """(1, T, A) float32 with zeros behind the last frame, and (1, T) bool, True for real frames."""
    most = clips["num_frames"]
    kept = frames[kept_indices(len(frames), most, clips["length_policy"])]
    affect = np.zeros((1, most, frames.shape[1]), np.float32)
    affect[0, : len(kept)] = kept
    return affect, np.arange(most)[None] < len(kept)


def known_frames(values: np.ndarray, clips: dict) -> np.ndarray:
    """(L, A) float32 without the rows in which a number is missing."""
    width = len(clips["input_names"])
    if values.ndim != 2 or values.shape[1] != width or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"frames must be (L, {width}) float, see input_names; got {values.shape} {values.dtype}"
        )
    return values[np.isfinite(values).all(1)].astype(np.float32)


def intensities_of(
    frames: np.ndarray, session: onnxruntime.InferenceSession, clips: dict
) -> np.ndarray:
    """(K,) float32 of one clip's (L, A) frames."""
    affect, frame_mask = padded(frames, clips)
    return session.run(["intensities"], {"affect": affect, "frame_mask": frame_mask})[0][0]


def open_model(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise ValueError(
            f"{path}: no model that can be opened: {' '.join(str(error).split())[:200]}"
        ) from error


def cautions(count: int, clips: dict) -> list[str]:
    """What to say of a clip with more frames than the model takes, or with hardly any."""
    most, policy = clips["num_frames"], clips["length_policy"]
    if count > most:
        return [
            f"{count} frames {'cut to the first' if policy == 'truncate' else 'thinned evenly to'} {most}"
        ]
    if count < FEW_FRAMES:
        return [f"rests on {count} frame{'s' * (count > 1)}: hardly a clip"]
    return []


def show(name: str, frames: np.ndarray, intensities: np.ndarray, clips: dict) -> None:
    """Intensities on stdout, what must stand beside them on stderr."""
    print(f"{name}: {len(frames)} frames, read as {clips['sampling_fps']:g} a second")
    rows = list(zip(clips["label_names"], intensities.tolist(), strict=True))
    if clips["calibrated"]:  # else outputs of different targets do not compare
        rows.sort(key=lambda row: row[1], reverse=True)
    for label, value in rows:
        print(f"  {label:<14} {value:5.2f}  {'#' * round(20 * min(max(value, 0.0), 1.0))}")
    for note in [*cautions(len(frames), clips), *clips["notes"]]:
        print(f"note: {note}", file=sys.stderr)


def write_affect(affect: np.ndarray, names: list[str], file: object) -> None:
    """One CSV row a frame."""
    np.savetxt(file, affect, fmt="%.6f", delimiter=",", header=",".join(names), comments="")


def array_in(path: Path) -> np.ndarray:
    """The array of a .npy file; ValueError for a file that holds none, or several."""
    try:
        values = np.load(path, allow_pickle=False)
    except EOFError as error:
        raise ValueError(f"{path}: is empty") from error
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{path}: holds several arrays (.npz); give one, a .npy file")
    return values


def run(args: argparse.Namespace) -> None:
    """Reads the array, runs the models, prints."""
    settings = json.loads((args.model / "settings.json").read_text("utf-8"))
    extractor, clips = settings["extractor"], settings["intensities"]
    values = array_in(args.array)
    if values.ndim == 2 and clips is not None:
        if args.frames:
            raise ValueError(
                "--frames writes what the extractor says of crops, and the array holds affect or features"
            )
        affect = known_frames(values, clips)
    elif extractor is None:
        raise ValueError(
            "this folder holds no extractor: give features, (L, A) float, see input_names; not crops"
        )
    else:
        affect = affect_of(
            values, open_model(args.model / extractor["file"], args.threads), extractor
        )
        if args.frames or clips is None:
            write_affect(affect, extractor["affect_names"], args.frames or sys.stdout)
            for note in extractor["notes"]:
                print(f"note: {note}", file=sys.stderr)
    if clips is None:
        return
    if len(affect) == 0:
        raise ValueError(f"{args.array}: no frame with a face, hence no intensities")
    session = open_model(args.model / clips["file"], args.threads)
    show(str(args.array), affect, intensities_of(affect, session, clips), clips)


def main() -> int:
    """The exit code: 0, or 1 with one line on what was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("array", type=Path, help="the clip, a .npy file")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(__file__).parent,
        help="the folder (default: this file's)",
    )
    parser.add_argument("--frames", type=Path, help="also write the frames' affect, a CSV file")
    parser.add_argument("--threads", type=int, default=1, help="compute threads (default 1)")
    try:
        run(parser.parse_args())
    except (OSError, ValueError) as error:
        print(f"run_onnx.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
