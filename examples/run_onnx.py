"""Predict one clip with a folder of `mma-mrnnet export --format onnx`: numpy and onnxruntime alone.

    python run_onnx.py crops.npy

The array holds one clip in time order, sampled at `sampling_fps` of settings.json:

- (L, S, S, 3) uint8 RGB face crops of the model's size S, aligned as `mma-mrnnet crop` does; or
- (L, A) float, each frame's numbers in the order of `input_names`; rows with a NaN are left out.

This file lies in the folder beside the models. Take parts of it for a program of your own.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

CHUNK = 32  # crops that go through the extractor at once
FEW_FRAMES = 4  # 2 s (our choice)


def scale_crops(crops: np.ndarray, extractor: dict) -> np.ndarray:
    """Return (N, 3, S, S) float32 pixel values of (N, S, S, 3) uint8 RGB crops."""
    side = extractor["image_size"]
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (side, side, 3):
        raise ValueError(
            f"crops must be (L, {side}, {side}, 3) uint8 RGB; got {crops.shape} {crops.dtype}. "
            "They are not resized here: cut them at the model's size, from the picture"
        )
    mean, std = (np.array(extractor[name], np.float32) for name in ("image_mean", "image_std"))
    pixels = crops.astype(np.float32) * np.float32(extractor["rescale_factor"])
    return np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))


def extract_affect(
    crops: np.ndarray, session: onnxruntime.InferenceSession, extractor: dict
) -> np.ndarray:
    """Return (L, A) float32: valence, arousal, expressions and action units of each crop."""
    pixel_values = (
        scale_crops(crops[start : start + CHUNK], extractor)
        for start in range(0, len(crops), CHUNK)
    )
    chunks = [session.run(["affect"], {"pixel_values": values})[0] for values in pixel_values]
    return np.concatenate([np.zeros((0, len(extractor["affect_names"])), np.float32), *chunks])


def choose_frames(length: int, most: int, policy: str) -> np.ndarray:
    """Return the indices of the frames that the model reads: at most `most`."""
    if policy == "truncate":
        return np.arange(min(length, most))
    if length == 0 or (policy == "thin" and length <= most):
        return np.arange(length)
    # Evenly spread from both ends, as PyTorch's linspace does, so that halves are rounded alike.
    step, places = (length - 1) / max(most - 1, 1), np.arange(most)
    evenly = np.where(places < most // 2, step * places, length - 1 - step * (most - 1 - places))
    return np.zeros(1, int) if most == 1 else np.round(evenly).astype(int)


def pad_frames(frames: np.ndarray, clips: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return (1, T, A) float32, zero-padded, and (1, T) bool, True for real frames."""
    most = clips["num_frames"]
    kept = frames[choose_frames(len(frames), most, clips["length_policy"])]
    affect = np.zeros((1, most, frames.shape[1]), np.float32)
    affect[0, : len(kept)] = kept
    return affect, np.arange(most)[None] < len(kept)


def drop_incomplete(values: np.ndarray, clips: dict) -> np.ndarray:
    """Return (L, A) float32 without the rows in which a number is missing."""
    width = len(clips["input_names"])
    if values.ndim != 2 or values.shape[1] != width or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"frames must be (L, {width}) float, see input_names; got {values.shape} {values.dtype}"
        )
    return values[np.isfinite(values).all(1)].astype(np.float32)


def predict_intensities(
    frames: np.ndarray, session: onnxruntime.InferenceSession, clips: dict
) -> np.ndarray:
    """Return (K,) float32 for one clip's (L, A) frames."""
    affect, frame_mask = pad_frames(frames, clips)
    return session.run(["intensities"], {"affect": affect, "frame_mask": frame_mask})[0][0]


def open_model(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise ValueError(
            f"{path}: no model that can be opened: {' '.join(str(error).split())[:200]}"
        ) from error


def list_cautions(count: int, clips: dict) -> list[str]:
    """Return a warning for a clip with more frames than the model takes, or with hardly any."""
    most, policy = clips["num_frames"], clips["length_policy"]
    if count > most:
        shortened = "cut to the first" if policy == "truncate" else "thinned evenly to"
        return [f"{count} frames {shortened} {most}"]
    if count < FEW_FRAMES:
        return [f"rests on {count} frame{'s' * (count > 1)}: too few to rely on"]
    return []


def print_result(name: str, frames: np.ndarray, intensities: np.ndarray, clips: dict) -> None:
    """Print intensities to stdout, and what must stand beside them to stderr."""
    print(f"{name}: {len(frames)} frames, read as {clips['sampling_fps']:g} a second")
    rows = list(zip(clips["label_names"], intensities.tolist(), strict=True))
    if clips["calibrated"]:  # else outputs of different targets do not compare
        rows.sort(key=lambda row: row[1], reverse=True)
    for label, value in rows:
        print(f"  {label:<14} {value:5.2f}  {'#' * round(20 * min(max(value, 0.0), 1.0))}")
    for note in [*list_cautions(len(frames), clips), *clips["notes"]]:
        print(f"note: {note}", file=sys.stderr)


def write_affect(affect: np.ndarray, names: list[str], file: object) -> None:
    """Write one CSV row a frame."""
    np.savetxt(file, affect, fmt="%.6f", delimiter=",", header=",".join(names), comments="")


def read_array(path: Path) -> np.ndarray:
    """Read the array of a .npy file; raise ValueError if it holds none, or several."""
    try:
        values = np.load(path, allow_pickle=False)
    except EOFError as error:
        raise ValueError(f"{path}: is empty") from error
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{path}: holds several arrays (.npz); give one, a .npy file")
    return values


def run(args: argparse.Namespace) -> None:
    """Read the array, run the models, print."""
    settings = json.loads((args.model / "settings.json").read_text("utf-8"))
    extractor, clips = settings["extractor"], settings["intensities"]
    values = read_array(args.array)
    if values.ndim == 2 and clips is not None:
        if args.frames:
            raise ValueError("--frames is for crops; the array holds affect or features")
        affect = drop_incomplete(values, clips)
    elif extractor is None:
        raise ValueError(
            "this folder holds no extractor: give features, (L, A) float, not crops; "
            "see input_names"
        )
    else:
        affect = extract_affect(
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
    print_result(str(args.array), affect, predict_intensities(affect, session, clips), clips)


def main() -> int:
    """Return the exit code: 0, or 1 with one line on what was wrong."""
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
