"""One file a corpus, each one function: folder -> data set; here their names, and how several are put together."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets

from mma_mrnnet.corpora.aff_wild2 import load_aff_wild2
from mma_mrnnet.corpora.affectnet import load_affectnet
from mma_mrnnet.corpora.bp4d import load_bp4d
from mma_mrnnet.corpora.disfa import load_disfa
from mma_mrnnet.corpora.emotionet import load_emotionet
from mma_mrnnet.corpora.face_parquet import load_face_parquet
from mma_mrnnet.corpora.labelled_folder import load_labelled_folder
from mma_mrnnet.corpora.raf_db import load_raf_db
from mma_mrnnet.features.frame_cache import cached_frames
from mma_mrnnet.features.records import FRAME_SPLITS, frame_features
from mma_mrnnet.model.labels import ACTION_UNITS

FRAME_CORPORA: dict[str, Callable[[str | Path, Sequence[int]], datasets.DatasetDict]] = {
    "aff_wild2": load_aff_wild2,
    "affectnet": load_affectnet,
    "bp4d": load_bp4d,
    "disfa": load_disfa,
    "emotionet": load_emotionet,
    "face_parquet": load_face_parquet,
    "labelled_folder": load_labelled_folder,
    "raf_db": load_raf_db,
}
"""Readers of labelled face crops, by the name that `--data NAME:FOLDER` takes."""


def load_frames(data: str, action_units: Sequence[int] = ACTION_UNITS) -> datasets.DatasetDict:
    """Labelled face crops of one corpus, or of several in a row, split by split; a sampler mixes them.

    Args:
        data: a folder that `load_face_parquet` reads, or `NAME:FOLDER` of `FRAME_CORPORA`, several between commas.
        action_units: the units whose columns come out; a corpus that does not annotate one has no label of it.

    Returns:
        A `DatasetDict` with `train` and `validation`; columns of `records.frame_features`.

    Raises:
        ValueError: a name that is not in `FRAME_CORPORA`, or what the corpus's reader raises.
    """
    if Path(data).is_dir():
        return load_face_parquet(data, action_units)
    places = [part.strip() for part in data.split(",")]
    if "" in places or len(set(places)) < len(places):
        raise ValueError(f"--data: each NAME:FOLDER between commas once, none empty; got {data!r}")
    parts = [_load_part(place, action_units) for place in places]
    columns = list(frame_features(action_units))
    return datasets.DatasetDict(
        {
            split: datasets.concatenate_datasets(
                [part[split].select_columns(columns) for part in parts]
            )
            for split in FRAME_SPLITS
        }
    )


def _load_part(part: str, action_units: Sequence[int]) -> datasets.DatasetDict:
    named = re.fullmatch(r"(\w{2,}):(.*)", part)  # one letter before a colon is a drive
    if named is None:
        return load_face_parquet(part, action_units)
    name, folder = named.groups()
    if not folder:
        raise ValueError(f"--data: {part} names no folder")
    if name not in FRAME_CORPORA:
        raise ValueError(
            f"--data: no corpus is called {name!r}; there are {', '.join(FRAME_CORPORA)}"
        )
    read = FRAME_CORPORA[name]
    if read is load_face_parquet:  # parquet has a cache of its own
        return read(folder, action_units)
    return cached_frames(read, folder, action_units)
