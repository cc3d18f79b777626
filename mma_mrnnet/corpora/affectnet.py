"""AffectNet (Mollahosseini, Hasani & Mahoor, 2019): photos with expression and valence-arousal."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from tqdm import tqdm

from mma_mrnnet.corpora.frame_tables import (
    as_splits,
    check_unique,
    read_expressions,
    read_numbers,
)
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import TextTable, read_text_table

PROVENANCE = Provenance("affectnet", "research-only", labels="human")

CLASSES = (
    *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"),
    *("contempt", "none", "uncertain", "non-face"),
)
"""The corpus's classes in code order, from 0; contempt and later ones become -100."""

CSV_COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
CSV_FILES = {"train": "training.csv", "validation": "validation.csv"}
NPY_FOLDERS = {"train": "train_set", "validation": "val_set"}


def load_affectnet(
    folder: str | Path, action_units: Sequence[int] = ACTION_UNITS
) -> datasets.DatasetDict:
    """Read either release of AffectNet with its own split; it has no action units.

    Contempt, none, uncertain and non-face become -100; such a row is dropped if it has no valence
    and arousal either (-2 in the corpus). Each image is its own `subject`, and not cropped.

    The folder holds `Manually_Annotated_file_lists/{training,validation}.csv` (header optional)
    and `Manually_Annotated_Images/`; or `{train_set,val_set}/images/<id>.jpg` and, beside
    `images`, `annotations/<id>_{exp,val,aro}.npy`.

    Raises:
        ValueError: neither or both releases, a wrong header or label, or a duplicate image.
    """
    folder = Path(folder).absolute()
    lists, newer = folder / "Manually_Annotated_file_lists", folder / NPY_FOLDERS["train"]
    if lists.is_dir() == newer.is_dir():
        raise ValueError(
            f"{folder}: exactly one of the folders {lists.name} and {newer.name} must be here"
        )
    if lists.is_dir():
        tables = {split: _read_csv(lists / name, folder) for split, name in CSV_FILES.items()}
    else:
        tables = {split: _read_arrays(folder / name) for split, name in NPY_FOLDERS.items()}
    return as_splits(tables, "affectnet", folder, action_units)


def _read_csv(path: Path, folder: Path) -> pd.DataFrame:
    table = read_text_table(path, delimiter=",", has_header=False, width=len(CSV_COLUMNS))
    if table.rows[0][0] == CSV_COLUMNS[0]:
        if tuple(table.rows[0]) != CSV_COLUMNS:
            raise table.error(
                0, f"the columns must be {','.join(CSV_COLUMNS)}; got {','.join(table.rows[0])}"
            )
        table = TextTable(path, table.rows[0], table.lines[1:], table.rows[1:])
    check_unique(table, 0)
    images = (folder / "Manually_Annotated_Images").as_posix()
    return _label_images(
        table,
        [f"{images}/{name}" for name in table.cells(0)],
        column=CSV_COLUMNS.index("expression"),
    )


def _read_arrays(folder: Path) -> pd.DataFrame:
    annotations = folder / "annotations"
    names = sorted(path.name.removesuffix("_exp.npy") for path in annotations.glob("*_exp.npy"))
    if not names:
        raise ValueError(f"{annotations}: no <id>_exp.npy here")
    rows = [
        [_read_scalar(annotations / f"{name}_{kind}.npy") for kind in ("exp", "val", "aro")]
        for name in tqdm(
            names, desc=f"reading {folder.name}", unit=" images", disable=len(names) < 10_000
        )
    ]
    table = TextTable(annotations, [], names, rows)
    return _label_images(
        table, [f"{folder.as_posix()}/images/{name}.jpg" for name in names], column=0
    )


def _read_scalar(path: Path) -> str:
    try:
        array = np.load(path, allow_pickle=False)
        return str(array.item())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not one number: {error}") from error


def _label_images(table: TextTable, images: list[str], *, column: int) -> pd.DataFrame:
    valence = read_numbers(table, column + 1, "valence", least=-1, most=1, none=(-2,))
    arousal = read_numbers(table, column + 2, "arousal", least=-1, most=1, none=(-2,))
    return pd.DataFrame(
        {
            "image": images,
            "subject": images,
            "expression": read_expressions(table, column, CLASSES),
            "valence": valence,
            "arousal": arousal,
        }
    )
