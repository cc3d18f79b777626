"""A data set as one Arrow file: built once, checked when it is opened, memory-mapped, so processes share its pages."""

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import uuid4

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

logger = logging.getLogger(__name__)

DAY_S = 86_400
NAME_KEY = b"mma_mrnnet_name"  # in the schema's metadata: which data set the file holds


def stored_dataset(folder: Path, name: str, features: datasets.Features) -> datasets.Dataset | None:
    """The data set that `store_dataset` wrote under this name, memory-mapped.

    The whole file is read once for its checksum (a second for 1.4 GB): damage inside would otherwise be taken for
    data, or end the process.

    Args:
        folder: where it lies.
        name: what it was stored as; names all that its content depends on.
        features: the columns that it must have.

    Returns:
        The rows; None where no file of this name is there, or only damaged or foreign ones, which are logged.
    """
    for path in sorted(folder.glob(f"{name}-*.arrow")):
        try:
            if _checksum(path) != path.stem.rpartition("-")[2]:
                logger.warning("%s: damaged (its checksum is another); built again", path)
                continue
            with path.open("rb") as file:
                found = (pa.ipc.open_stream(file).schema.metadata or {}).get(NAME_KEY, b"").decode()
            rows = datasets.Dataset.from_file(str(path))
        except FileNotFoundError:
            continue
        # What is raised for a file that is no Arrow file, or another release's, depends on where it differs.
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            logger.warning("%s: not readable (%s); built again", path, type(error).__name__)
            continue
        if found == name and rows.features == features:
            return rows
        logger.warning("%s: holds another data set; built again", path)
    return None


def store_dataset(
    parts: Iterable[pa.Table], folder: Path, name: str, features: datasets.Features
) -> datasets.Dataset:
    """Writes tables one after the other into one file, and opens it; memory holds one of them at a time.

    The file is written beside its place and renamed to `<name>-<checksum>.arrow`: several processes may store the same
    data set at once, and a killed one leaves nothing that could be taken for it.

    Args:
        parts: tables with the columns of `features`, in their order.
        folder: made where it is missing.
        name: names all that the content depends on; letters, digits, `_` and `-`.
        features: the columns.

    Returns:
        The rows, memory-mapped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder)
    schema = features.arrow_schema
    schema = schema.with_metadata({**schema.metadata, NAME_KEY: name.encode()})
    staging = folder / f".{name}.tmp-{uuid4().hex}"
    try:
        with pa.OSFile(str(staging), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for part in parts:
                writer.write_table(part.cast(schema))
        path = folder / f"{name}-{_checksum(staging)}.arrow"
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return datasets.Dataset.from_file(str(path))


def frames_column(clips: Sequence[np.ndarray], features: datasets.Features) -> pa.ExtensionArray:
    """The column `affect` of a table with the columns of `features`.

    Args:
        clips: an array (L, A) of frames each; L may be 0.
        features: as `records.clip_features` gives them.
    """
    width = features["affect"].shape[1]  # A
    frames = np.concatenate([np.zeros((0, width)), *clips], dtype=np.float32)  # (sum of L, A)
    ends = np.cumsum([0, *map(len, clips)], dtype=np.int32)
    # From flat arrays, as Arrow keeps them: the library's own way in takes up to a millisecond a clip.
    row_ends = np.arange(len(frames) + 1, dtype=np.int32) * width
    rows = pa.ListArray.from_arrays(row_ends, frames.ravel())
    kind = features.arrow_schema.field("affect").type
    return pa.ExtensionArray.from_storage(kind, pa.ListArray.from_arrays(ends, rows))


def frame_counts(rows: datasets.Dataset) -> np.ndarray:
    """(N,) int64 frames of each row's `affect`; no affect is read for it."""
    affect = rows.select_columns(["affect"]).with_format("arrow")[:]["affect"]
    counts = [
        pc.list_value_length(chunk.storage).to_numpy(zero_copy_only=False)
        for chunk in affect.chunks
    ]
    return np.concatenate([np.zeros(0, np.int64), *counts]).astype(np.int64)


def remove_stale(folder: Path) -> None:
    """Removes what writers left that were killed more than a day ago; a younger file may still be written to."""
    for path in folder.glob(".*.tmp-*"):
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - path.stat().st_mtime > DAY_S:
                path.unlink()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
