"""Frame corpora read once: their rows as Arrow files in the cache of `datasets`, until a file of the corpus changes."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets

from mma_mrnnet.features.arrow_files import store_dataset, stored_dataset
from mma_mrnnet.features.records import FRAME_SPLITS, frame_features
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ROWS = 100_000  # rows that are written at once


def cached_frames(
    read: Callable[[str | Path, Sequence[int]], datasets.DatasetDict],
    folder: str | Path,
    action_units: Sequence[int] = ACTION_UNITS,
) -> datasets.DatasetDict:
    """What `read(folder, action_units)` returns, from the cache where nothing has changed, memory-mapped.

    The rows lie in a folder of ours in `datasets.config.HF_DATASETS_CACHE` under a digest of the corpus's files, see
    `signature`, of the columns, and of the readers' own source. Where they cannot be written they stay in memory.

    Args:
        read: a reader of a corpus whose images stay where they are.
        folder: the corpus.
        action_units: the units whose columns come out.

    Returns:
        A `DatasetDict` with `train` and `validation`; columns of `records.frame_features`.

    Raises:
        ValueError: what the reader raises.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        return read(folder, action_units)  # which says what is missing
    features = frame_features(action_units)
    # Before the corpus is read: should it change meanwhile, the next run notices.
    content = [
        read.__name__,
        str(folder),
        signature(folder),
        _digest_of_readers(),
        repr(features),
        EXPRESSIONS,
    ]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "mma_mrnnet_frames"
    stored = {split: stored_dataset(cache, f"{split}-{digest}", features) for split in FRAME_SPLITS}
    if all(rows is not None for rows in stored.values()):
        logger.info("%s: unchanged; its rows come from %s", folder, cache)
        return datasets.DatasetDict(stored)
    made = read(folder, action_units)
    try:
        for split in FRAME_SPLITS:
            table = made[split].select_columns(list(features)).with_format("arrow")
            parts = (table[first : first + ROWS] for first in range(0, len(table), ROWS))
            made[split] = store_dataset(parts, cache, f"{split}-{digest}", features)
    except OSError as error:
        logger.warning("%s: its rows cannot be kept for the next run: %s", cache, error)
    return made


def signature(folder: Path) -> str:
    """A digest that changes with a corpus's annotations, and where an image comes, goes or is renamed.

    Of images it holds the names, since rows name their images and are read from them later; of all other files path,
    size and time of change.
    """
    digest = hashlib.sha256()
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
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
    """A digest of this folder's source, so that what an older reader made of a corpus is not taken for today's."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
