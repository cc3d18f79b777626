"""RAF-DB (Li, Deng & Du, CVPR 2017), the basic part: web photos with one of seven expressions."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from mma_mrnnet.corpora.frame_tables import as_splits, check_unique, read_expressions
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import read_text_table

PROVENANCE = Provenance("raf_db", "research-only", labels="human")

CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""The corpus's classes in code order, from 1."""


def load_raf_db(
    folder: str | Path, action_units: Sequence[int] = ACTION_UNITS
) -> datasets.DatasetDict:
    """Read aligned crops of RAF-DB with expressions; its test part is our validation.

    RAF-DB has no action units and no people: each image is its own `subject`. The folder holds
    `basic/EmoLabel/list_patition_label.txt` (the corpus's spelling), rows `train_00001.jpg 5`,
    and `basic/Image/aligned/train_00001_aligned.jpg`.

    Raises:
        ValueError: no list, an unknown name or code, or a duplicate name.
    """
    folder = Path(folder).absolute()
    table = read_text_table(
        folder / "basic/EmoLabel/list_patition_label.txt", delimiter=" ", has_header=False, width=2
    )
    check_unique(table, 0)
    names = table.cells(0)
    for row, name in enumerate(names):
        if not name.startswith(("train_", "test_")):
            raise table.error(row, f"an image must be named train_... or test_...; got {name!r}")
    rows = pd.DataFrame(
        {
            "image": [
                f"{folder.as_posix()}/basic/Image/aligned/{Path(name).stem}_aligned.jpg"
                for name in names
            ],
            "subject": [Path(name).stem for name in names],
            "expression": read_expressions(table, 1, CLASSES, first=1),
        }
    )
    training = np.array([name.startswith("train_") for name in names], dtype=bool)
    return as_splits(
        {"train": rows[training], "validation": rows[~training]}, "raf_db", folder, action_units
    )
