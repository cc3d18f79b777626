"""The label format of all corpora: columns of frames and clips, and clips as files."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from mma_mrnnet.model.labels import ACTION_UNITS, affect_names

CLIP_SPLITS = ("train", "validation", "test")
FRAME_SPLITS = ("train", "validation")
AFFECT_SIZE = len(affect_names())
"""Affect numbers per frame with the default units: 26."""

CROP_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class ClipFile:
    """An annotated clip of a corpus.

    Attributes:
        clip_id: unique in its corpus.
        path: a video, a table of features, or a folder of one person's crops, named by whole
            numbers in time order.
        subject: the person; empty if unknown.
        labels: intensity by target, NaN if unlabelled; all clips of a corpus have the same keys.
        listed_as: the clip's name in the corpus's own table, for tables of predictions.
    """

    clip_id: str
    path: Path
    subject: str
    split: str
    labels: dict[str, float]
    listed_as: str = ""

    @property
    def is_labelled(self) -> bool:
        """Whether any target has a label."""
        return not all(math.isnan(label) for label in self.labels.values())

    @property
    def files(self) -> list[Path]:
        """Return the video or table, or the crops in numerical order; empty if missing."""
        if not self.path.is_dir():
            return [self.path] if self.path.exists() else []
        crops = [
            path
            for path in self.path.iterdir()
            if path.suffix.lower() in CROP_SUFFIXES and path.stem.isdecimal()
        ]
        return sorted(crops, key=lambda path: (int(path.stem), path.name))


def check_inside(name: str, folder: Path, root: Path, place: str) -> None:
    """Raise ValueError if a name leads out of the folder `root`; links may."""
    path = Path(os.path.abspath(folder / name))  # noqa: PTH100 - resolve() would follow links
    if not path.is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        raise ValueError(f"{place}: {name!r} is not in {root}; link to it or copy it there")


def action_unit_column(number: int) -> str:
    """Return the column of a unit: `au01` for 1."""
    return f"au{number:02d}"


def frame_features(action_units: Sequence[int] = ACTION_UNITS) -> datasets.Features:
    """Return the columns of a data set of labelled, aligned face crops.

    A `subject` is in one split only; `source` is the row's origin. `valence` and `arousal` are in
    [-1, 1], `au01` ... in [0, 1], NaN if unlabelled. `expression` is an index into
    `labels.EXPRESSIONS`, -100 if unlabelled.
    """
    return datasets.Features(
        {
            "image": datasets.Image(),
            "subject": datasets.Value("string"),
            "source": datasets.Value("string"),
            "valence": datasets.Value("float32"),
            "arousal": datasets.Value("float32"),
            "expression": datasets.Value("int64"),
            **{action_unit_column(unit): datasets.Value("float32") for unit in action_units},
        }
    )


def clip_features(num_labels: int, input_size: int = AFFECT_SIZE) -> datasets.Features:
    """Return the columns of a data set of clips with known affect, one row per clip.

    `affect` is (L, input_size) at stage 2's frame rate, without padding; it may hold other
    features. `labels` are K intensities, NaN if unlabelled. `kind` is `reaction`, or what else the
    clip shows.
    """
    return datasets.Features(
        {
            "clip_id": datasets.Value("string"),
            "subject": datasets.Value("string"),
            "kind": datasets.Value("string"),
            "affect": datasets.Array2D((None, input_size), "float32"),
            "labels": datasets.Sequence(datasets.Value("float32"), length=num_labels),
        }
    )


def affect_column(clips: Sequence[np.ndarray], features: datasets.Features) -> pa.ExtensionArray:
    """Return the column `affect` of arrays (L, A), where L may be 0."""
    width = features["affect"].shape[1]  # A
    frames = np.concatenate([np.zeros((0, width)), *clips], dtype=np.float32)  # (sum of L, A)
    ends = np.cumsum([0, *map(len, clips)], dtype=np.int32)
    # Built from flat arrays: `datasets` itself takes up to a millisecond per clip.
    row_ends = np.arange(len(frames) + 1, dtype=np.int32) * width
    rows = pa.ListArray.from_arrays(row_ends, frames.ravel())
    kind = features.arrow_schema.field("affect").type
    return pa.ExtensionArray.from_storage(kind, pa.ListArray.from_arrays(ends, rows))


def affect_arrays(rows: datasets.Dataset) -> list[np.ndarray]:
    """Return each row's `affect`, (L, A) float32, as views of Arrow's memory."""
    column = rows.select_columns(["affect"]).with_format("arrow")[:]["affect"]
    width = column.type.shape[1]
    found = []
    for chunk in column.chunks:
        frames = chunk.storage.values  # one list per frame
        ends = frames.offsets.to_numpy()[chunk.storage.offsets.to_numpy()].tolist()
        numbers = frames.values.to_numpy(zero_copy_only=True)
        found += [numbers[first:last].reshape(-1, width) for first, last in pairwise(ends)]
    return found
