"""Rows of frame corpora: read once, and cached until a file of the corpus changes."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import pyarrow as pa

from mma_mrnnet.features.records import FRAME_SPLITS, frame_features
from mma_mrnnet.files import content_digest, file_digest, replaced_folder, write_json
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ROWS = 100_000  # per write
DIGESTS = "digests.json"


def cached_frames(
    read: Callable[[str | Path, Sequence[int]], datasets.DatasetDict],
    folder: str | Path,
    action_units: Sequence[int] = ACTION_UNITS,
) -> datasets.DatasetDict:
    """Return the result of `read`, memory-mapped from the cache if nothing changed.

    The cache is in `datasets.config.HF_DATASETS_CACHE`. Its key is a digest of the corpus's files
    (see `signature`), the action units and the readers' source code. If it cannot be written, the
    rows stay in memory. `read` must not copy images. Errors of `read` are passed on.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        return read(folder, action_units)  # raises the error that says what is missing
    # Computed before reading: if the corpus changes meanwhile, the next run notices.
    digest = content_digest(
        read.__name__,
        str(folder),
        signature(folder),
        _digest_of_readers(),
        repr(frame_features(action_units)),
        EXPRESSIONS,
    )
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "mma_mrnnet_frames" / digest[:40]
    if (stored := _open_stored(cache)) is not None:
        logger.info("%s: unchanged; its rows come from %s", folder, cache)
        return stored
    made = read(folder, action_units)
    try:
        _store(made, cache, frame_features(action_units))
        return _open_stored(cache) or made
    except OSError as error:
        logger.warning("%s: its rows cannot be kept for the next run: %s", cache, error)
        return made


def _open_stored(folder: Path) -> datasets.DatasetDict | None:
    if not folder.is_dir():
        return None
    splits = datasets.DatasetDict()
    try:
        digests = json.loads((folder / DIGESTS).read_text("utf-8"))
        for split in FRAME_SPLITS:
            path = folder / f"{split}.arrow"
            if file_digest(path) != digests[split]:
                raise ValueError(f"the digest of {path.name} differs")
            splits[split] = datasets.Dataset.from_file(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        logger.warning("%s: damaged (%s); read again from the corpus", folder, error)
        return None
    return splits


def _store(splits: datasets.DatasetDict, folder: Path, features: datasets.Features) -> None:
    schema = features.arrow_schema
    with replaced_folder(folder) as staging:
        digests = {}
        for split in FRAME_SPLITS:
            path = staging / f"{split}.arrow"
            rows = splits[split].select_columns(list(features)).with_format("arrow")
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
                for first in range(0, len(rows), ROWS):
                    writer.write_table(rows[first : first + ROWS].cast(schema))
            digests[split] = file_digest(path)
        write_json(staging / DIGESTS, digests)


def signature(folder: Path) -> str:
    """Return a digest of a corpus's annotations and image names.

    It covers names of images, not their content, since rows hold only names; of other files, path,
    size and modification time.
    """
    digest = hashlib.sha256()
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:  # a cyclic link
            continue
        seen.add((status.st_dev, status.st_ino))
        lines, folders = [], []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(place / entry.name)
                elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                    lines.append(entry.name)
                elif entry.is_file():
                    status = entry.stat()
                    lines.append(f"{entry.name}\0{status.st_size}\0{status.st_mtime_ns}")
        digest.update(
            "\n".join([str(place), *sorted(lines), ""]).encode("utf-8", "surrogateescape")
        )
        waiting += sorted(folders)
    return digest.hexdigest()


def _digest_of_readers() -> str:
    """Return a digest of this folder's source, which invalidates rows of older readers."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
