"""Affect of a corpus's clips, computed once and kept on disk."""

import hashlib
import json
import logging
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from mma_mrnnet.data.affect import CHUNK, affect_of, frames_with_affect
from mma_mrnnet.data.crop_store import CropError, read_index
from mma_mrnnet.data.faces import FaceDetector, crop_faces
from mma_mrnnet.data.records import ClipFile, clip_features
from mma_mrnnet.data.video import VideoError, read_frames
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import SCALING, MMAMRNNetVideoProcessor

logger = logging.getLogger(__name__)

CACHE_FORMAT = 1  # raise it when decoding, detection or alignment change what a clip's affect is


@dataclass
class CorpusAffect:
    """Affect of a corpus's clips.

    Attributes:
        clips: the clips with at least one face, in the corpus's order ...
        affect: ... and the affect (L, A) float32 of each, real frames only.
        without_face: ids of the clips in which no face was found.
        unreadable: ids of the clips that could not be read.
        from_cache: how many clips were not computed again.
    """

    clips: list[ClipFile] = field(default_factory=list)
    affect: list[np.ndarray] = field(default_factory=list)
    without_face: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    from_cache: int = 0


class AffectCache:
    """Affect of clips at one frame rate by one extractor, a file a clip.

    A file's name is a digest of all that its content depends on: the extractor's weights and form, the processor's
    scaling, the frame rate, and path, size and time of change of the clip's files. Files are written beside their
    place and renamed, so that processes may share a folder, and a killed run goes on where it was.

    Args:
        folder: made where it is missing.
        extractor: a stage-1 model in eval mode.
        processor: the model's processor.
        fps: frames a second taken from videos; crops without an index are taken as they come.
    """

    def __init__(
        self, folder: str | os.PathLike[str], extractor: MMAModel, processor: MMAMRNNetVideoProcessor, fps: float
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.extractor = extractor
        self.processor = processor
        self.fps = float(fps)
        self._settings = {
            "format": CACHE_FORMAT,
            "extractor": _digest_of_model(extractor),
            "scaling": _scaling_of(processor),
            "fps": self.fps,
        }
        self._detector: FaceDetector | None = None

    def path_of(self, clip: ClipFile) -> Path:
        """Where the clip's affect lies, or will."""
        return self.folder / f"{self._key(clip)}.npz"

    def stored(self, clip: ClipFile) -> np.ndarray | None:
        """(L, A) float32 from the cache; None where it is not there, damaged or another clip's."""
        key = self._key(clip)
        path = self.folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                affect, found = file["affect"], str(file["key"])
        except FileNotFoundError:
            return None
        # What numpy raises on a damaged archive depends on where the damage is.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            logger.warning("%s: damaged (%s); computed again", path, type(error).__name__)
            return None
        columns = self.extractor.config.affect_size
        fits = affect.dtype == np.float32 and affect.ndim == 2 and affect.shape[1] == columns
        if found != key or not fits or not np.isfinite(affect).all():
            logger.warning("%s: not the affect of %s; computed again", path, clip.clip_id)
            return None
        return affect

    def compute(self, clip: ClipFile) -> np.ndarray:
        """(L, A) float32 of the clip's frames with a face, computed and stored.

        Raises:
            VideoError: a video that cannot be read.
            CropError: a crop that cannot be read, or crops of another rate.
        """
        key = self._key(clip)  # before the clip is read: should it change meanwhile, the next run notices
        path = self.folder / f"{key}.npz"
        affect = self._affect_of_folder(clip) if clip.path.is_dir() else self._affect_of_video(clip.path)
        staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        try:
            with staging.open("wb") as file:
                np.savez(file, affect=affect, key=np.array(key))
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)
        return affect

    def _affect_of_video(self, path: Path) -> np.ndarray:
        self._detector = self._detector or FaceDetector()
        frames = crop_faces(read_frames(path, self.fps), self.extractor.config.image_size, self._detector)
        rows = [row for _, row in frames_with_affect(frames, self.extractor, self.processor) if row is not None]
        return np.stack(rows) if rows else affect_of([], self.extractor, self.processor)

    def _affect_of_folder(self, clip: ClipFile) -> np.ndarray:
        files, chunks = self._files(clip), []
        for first in range(0, len(files), CHUNK):
            crops = [_read_crop(path) for path in files[first : first + CHUNK]]
            chunks.append(affect_of(crops, self.extractor, self.processor))
        return np.concatenate(chunks) if chunks else affect_of([], self.extractor, self.processor)

    def _files(self, clip: ClipFile) -> list[Path]:
        """The clip's files at this cache's rate, which only crops with an index can be thinned to."""
        index = read_index(clip.path) if clip.path.is_dir() else None
        return clip.files if index is None else index.files_at(clip.path, self.fps)

    def _key(self, clip: ClipFile) -> str:
        files = []
        for path in self._files(clip):
            status = path.stat()
            files.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
        content = json.dumps({**self._settings, "files": files}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:40]


def corpus_affect(clips: list[ClipFile], cache: AffectCache, *, start: float = 0.0) -> CorpusAffect:
    """Affect of all clips, from the cache where it is there, else computed; a progress bar shows how far it is.

    Clips without a face, and clips that cannot be read, are counted, logged and left out.

    Args:
        clips: of one corpus.
        cache: where affect is kept.
        start: share of the clips after which to begin, in [0, 1). Processes that begin at different places share the
            work, each finding in the cache what the others did.

    Returns:
        The affect in the order of `clips`, wherever the work began.
    """
    done = CorpusAffect()
    first = int(start * len(clips))
    found: dict[int, np.ndarray] = {}
    for number in tqdm([*range(first, len(clips)), *range(first)], desc="affect of clips", mininterval=5):
        clip = clips[number]
        try:
            affect = cache.stored(clip)
            done.from_cache += affect is not None
            found[number] = cache.compute(clip) if affect is None else affect
        except (VideoError, CropError) as error:
            logger.warning("left out: %s", error)
            done.unreadable.append(clip.clip_id)
    for number, affect in sorted(found.items()):
        if len(affect) == 0:
            done.without_face.append(clips[number].clip_id)
        else:
            done.clips.append(clips[number])
            done.affect.append(affect)
    logger.info(
        "affect of %d clips (%d from the cache); left out: %d without a face, %d unreadable",
        len(done.clips), done.from_cache, len(done.without_face), len(done.unreadable),
    )  # fmt: skip
    return done


def affect_dataset(clips: list[ClipFile], affect: list[np.ndarray], extractor: MMAModel) -> datasets.Dataset:
    """Clips and their affect as a data set with the columns of `records.clip_features`; all are of kind `reaction`."""
    return datasets.Dataset.from_dict(
        {
            "clip_id": [clip.clip_id for clip in clips],
            "subject": [clip.subject for clip in clips],
            "kind": ["reaction"] * len(clips),
            "affect": affect,
            "labels": [np.array(list(clip.labels.values()), np.float32) for clip in clips],
        },
        features=clip_features(len(clips[0].labels), extractor.config.action_units),
    )


def _read_crop(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    # What Pillow raises on a damaged file depends on the format; a huge one is refused by its own rule.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CropError(f"{path}: not an image that can be read ({type(error).__name__})") from error


def _digest_of_model(extractor: MMAModel) -> str:
    """A digest of the weights, to the bit, and of the settings that they do not show."""
    config = extractor.config
    backbone = {name: value for name, value in config.backbone_config.to_dict().items() if name[0] != "_"}
    backbone.pop("transformers_version", None)
    settings = {"image_size": config.image_size, "action_units": list(config.action_units), "backbone": backbone}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(extractor.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _scaling_of(processor: MMAMRNNetVideoProcessor) -> dict[str, object]:
    """The settings that change pixel values, as JSON can hold them."""
    settings = {name: getattr(processor, name) for name in SCALING}
    settings["size"] = {side: length for side, length in dict(processor.size).items() if length is not None}
    return settings
