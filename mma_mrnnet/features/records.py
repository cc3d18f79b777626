"""The one label format behind every corpus: a frame's and a clip's columns, and a clip that still lies in files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets

from mma_mrnnet.model.labels import ACTION_UNITS, affect_names

CLIP_SPLITS = ("train", "validation", "test")
FRAME_SPLITS = ("train", "validation")
AFFECT_SIZE = len(affect_names())
"""Numbers a frame where the extractor has the default units: 26."""

CROP_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class ClipFile:
    """An annotated clip as a corpus holds it.

    Attributes:
        clip_id: unique in its corpus.
        path: a video, a table of features, or a folder of one person's face crops whose names are whole numbers in
            time order.
        subject: the person; empty where the corpus does not say.
        split: one of `CLIP_SPLITS`.
        labels: intensity in [0, 1] by target name, NaN where unlabelled; the same names in all clips of a corpus.
        listed_as: the name that the corpus's own table gives the clip; tables of predictions use it.
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
        """The video or table alone, or the crops in numerical order; an empty list where nothing is at `path`."""
        if not self.path.is_dir():
            return [self.path] if self.path.exists() else []
        crops = [
            path
            for path in self.path.iterdir()
            if path.suffix.lower() in CROP_SUFFIXES and path.stem.isdecimal()
        ]
        return sorted(crops, key=lambda path: (int(path.stem), path.name))


def action_unit_column(number: int) -> str:
    """`au01` for 1: the column that holds a unit's intensity."""
    return f"au{number:02d}"


def frame_features(action_units: Sequence[int] = ACTION_UNITS) -> datasets.Features:
    """Columns of a data set of labelled face crops.

    `image` is an aligned crop; `subject` a person, never in two splits; `source` says where the row comes from;
    `valence` and `arousal` lie in [-1, 1], NaN where unlabelled; `expression` is an index into `labels.EXPRESSIONS`,
    -100 where unlabelled; `au01` ... are intensities in [0, 1], NaN where not annotated.
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
    """Columns of a data set of clips whose affect, or other features, are known, one row a clip.

    `affect` is (L, input_size) at stage 2's frame rate, real frames only; `labels` are K intensities in [0, 1], NaN
    where unlabelled; `kind` is `reaction`, or names what else the clip shows.
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
