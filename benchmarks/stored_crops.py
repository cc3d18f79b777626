"""What storing crops costs: bytes, changes of affect and intensities, crops a second.

    python benchmarks/stored_crops.py

Makes 12 s clips from the public-domain astronaut photo, with a moving camera, and stores their
crops as jpg and png by the code of `mma-mrnnet crop`. Writes `benchmarks/results/stored_crops.json`.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image

from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.crops.folder import crop_corpus
from mma_mrnnet.crops.store import CropSettings
from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.faces.tracks import crop_faces, rank_people
from mma_mrnnet.files import write_json
from mma_mrnnet.hub.checkpoints import load_pretrained
from mma_mrnnet.metrics import rounded
from mma_mrnnet.video.reading import read_frames
from mma_mrnnet.video.writing import write_video

RESULT = Path(__file__).parent / "results" / "stored_crops.json"
FPS = 2.0
COPIES = 12
"""Clips that the workers are timed on."""


def compare(clip: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Return for each format the bytes a crop, and the differences from the video."""
    model, processor = load_pretrained()

    def intensities(affect: np.ndarray) -> np.ndarray:
        values, mask = processor.pad([affect])
        with torch.inference_mode():
            return model(affect=values, frame_mask=mask).intensities.numpy()

    frames = list(crop_faces(read_frames(clip, FPS), 112, FaceDetector()))
    person = rank_people(frames)[0]
    wanted = extract_affect(
        [frame.crops[person] for frame in frames if person in frame.crops], model.mma, processor
    )
    result = {}
    for image_format in ("jpg", "png"):
        out = folder / image_format
        crop_corpus(clip.parent, out, CropSettings(FPS, 112, image_format), 1)
        files = sorted(out.rglob(f"*.{image_format}"))
        found = extract_affect(
            [np.asarray(Image.open(path).convert("RGB")) for path in files], model.mma, processor
        )
        difference = np.abs(found - wanted)
        result[image_format] = {
            "crops": len(files),
            "bytes_a_crop": sum(path.stat().st_size for path in files) / len(files),
            "affect_mean_difference": difference.mean(),
            "affect_largest_difference": difference.max(),
            "intensities_largest_difference": np.abs(
                intensities(found) - intensities(wanted)
            ).max(),
        }
    return result


def rates(clip: Path, folder: Path) -> dict[str, float]:
    """Return crops a second of 1 and of 2 workers, without their start."""
    many = folder / "many"
    many.mkdir()
    for number in range(COPIES):
        shutil.copy(clip, many / f"{number}.mp4")
    crop_corpus(
        clip.parent, folder / "warm", CropSettings(None), 1
    )  # the fork server, which imports the package
    result = {}
    for workers in (1, 2):
        report = crop_corpus(many, folder / f"by{workers}", CropSettings(None), workers)
        result[f"{workers} workers"] = report.faces / report.seconds
    return result


def main() -> None:
    """Run both and write the result."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clips" / "face.mp4"
        clip.parent.mkdir()
        write_video(clip, camera_move(astronaut(), 360, (1280, 720)), 30)
        result = {
            "what": f"crops of 112 pixels of a 12 s 1280x720 clip at {FPS:g} frames a second, "
            "the shipped checkpoint",
            "command": "python benchmarks/stored_crops.py",
            "machine": machine(),
            "formats": compare(clip, folder),
            "crops_a_second_of_every_frame": rates(clip, folder),
        }
    write_json(RESULT, rounded(result))
    print(json.dumps(json.loads(RESULT.read_text("utf-8")), indent=1))


if __name__ == "__main__":
    main()
