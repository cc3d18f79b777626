"""The label format behind every corpus: columns of frames and clips, and a clip in files."""

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
"""Numbers a frame of an extractor with the default units: 26."""

CROP_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class ClipFile:
    """An annotated clip as a corpus holds it.

    Attributes:
        clip_id: unique in its corpus.
        path: a video, a table of features, or a folder of one person's face crops whose names are
            whole numbers in time order.
        subject: the person; empty if the corpus does not say.
        split: one of `CLIP_SPLITS`.
        labels: intensity by target name, NaN if unlabelled; the same names in all clips of a
            corpus.
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
        """The video or table alone, or the crops in numerical order; empty if `path` is missing."""
        if not self.path.is_dir():
            return [self.path] if self.path.exists() else []
        crops = [
            path
            for path in self.path.iterdir()
            if path.suffix.lower() in CROP_SUFFIXES and path.stem.isdecimal()
        ]
        return sorted(crops, key=lambda path: (int(path.stem), path.name))


def check_inside(name: str, folder: Path, root: Path, place: str) -> None:
    """Check that a file that a table names lies in the data's folder; links in it may lead out.

    Raises:
        ValueError: the name leads out of `root`.
    """
    path = Path(os.path.abspath(folder / name))  # noqa: PTH100 - resolve() would follow links
    if not path.is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        raise ValueError(f"{place}: {name!r} is not in {root}; link to it or copy it there")


def action_unit_column(number: int) -> str:
    """Return the column that holds a unit's intensity: `au01` for 1."""
    return f"au{number:02d}"


def frame_features(action_units: Sequence[int] = ACTION_UNITS) -> datasets.Features:
    """Return the columns of a data set of labelled face crops.

    `image` is an aligned crop; `subject` a person, never in two splits; `source` says where the
    row comes from; `valence` and `arousal` lie in [-1, 1], NaN if unlabelled; `expression` is an
    index into `labels.EXPRESSIONS`, -100 if unlabelled; `au01` ... are intensities in [0, 1], NaN
    if not annotated.
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
    """Return the columns of a data set of clips, one row a clip, whose affect is known.

    `affect` is (L, input_size) at stage 2's frame rate, real frames only, and may be other
    features; `labels` are K intensities, NaN if unlabelled; `kind` is `reaction`, or names what
    else the clip shows.
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
    """Return the column `affect` of a table.

    Args:
        clips: an array (L, A) of frames each; L may be 0.
        features: as `clip_features` gives them.
    """
    width = features["affect"].shape[1]  # A
    frames = np.concatenate([np.zeros((0, width)), *clips], dtype=np.float32)  # (sum of L, A)
    ends = np.cumsum([0, *map(len, clips)], dtype=np.int32)
    # From flat arrays, as Arrow holds them: `datasets`' own way takes up to a millisecond a clip.
    row_ends = np.arange(len(frames) + 1, dtype=np.int32) * width
    rows = pa.ListArray.from_arrays(row_ends, frames.ravel())
    kind = features.arrow_schema.field("affect").type
    return pa.ExtensionArray.from_storage(kind, pa.ListArray.from_arrays(ends, rows))


def affect_arrays(rows: datasets.Dataset) -> list[np.ndarray]:
    """Return each row's `affect`, (L, A) float32, as views of the numbers that Arrow holds."""
    column = rows.select_columns(["affect"]).with_format("arrow")[:]["affect"]
    width = column.type.shape[1]
    found = []
    for chunk in column.chunks:
        frames = chunk.storage.values  # one list of numbers a frame
        ends = frames.offsets.to_numpy()[chunk.storage.offsets.to_numpy()].tolist()
        numbers = frames.values.to_numpy(zero_copy_only=True)
        found += [numbers[first:last].reshape(-1, width) for first, last in pairwise(ends)]
    return found
