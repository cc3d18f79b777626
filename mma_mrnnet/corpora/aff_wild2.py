"""Aff-Wild2 (Kollias & Zafeiriou, 2018 on): videos with valence-arousal, expressions, AUs."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from mma_mrnnet.corpora.frame_tables import (
    as_splits,
    check_unique,
    read_expressions,
    read_numbers,
    read_presence,
)
from mma_mrnnet.features.records import action_unit_column
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import TextTable, read_text_table

PROVENANCE = Provenance("aff_wild2", "research-only", labels="human")

logger = logging.getLogger(__name__)

CLASSES = (*EXPRESSIONS, "other")
"""The corpus's classes in code order, from 0; the first edition has no "other"."""

CHALLENGE_UNITS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
FIRST_EDITION_UNITS = (1, 2, 4, 6, 12, 15, 20, 25)

SPLIT_FOLDERS = {"train": ("Train_Set", "Training_Set"), "validation": ("Validation_Set",)}
MULTI_TASK_FILES = {
    "train": "training_set_annotations.txt",
    "validation": "validation_set_annotations.txt",
}


def load_aff_wild2(
    folder: str | Path, action_units: Sequence[int] = ACTION_UNITS
) -> datasets.DatasetDict:
    """Read Aff-Wild2 with its own split: first edition, challenge or s-Aff-Wild2 files.

    A frame that several tasks label becomes one row with all labels. If one task trains on a
    video that another validates on, its training labels are dropped, so that no video is in
    both splits (our choice). `subject` is the video; a second person's is `<video>_left` or
    `<video>_right`. The class "other" becomes -100.

    The folder holds `cropped_aligned/<video>/00001.jpg`, and the annotations in it or in one of
    its folders. These are s-Aff-Wild2's `{training,validation}_set_annotations.txt`, or
    `TASK/{Train_Set or Training_Set,Validation_Set}/<video>.txt`, where TASK is
    `VA_Estimation_Challenge`, `EXPR_Recognition_Challenge`, `EXPR_Classification_Challenge` or
    `AU_Detection_Challenge` (first edition: `VA_Set`, `EXPR_Set`, `AU_Set`).

    Raises:
        ValueError: no annotations, two editions, a wrong header, or a label out of range.
    """
    folder = Path(folder).absolute()
    root = _find_annotations(folder)
    if (root / MULTI_TASK_FILES["train"]).is_file():
        tables = {split: _read_multi_task(root / name) for split, name in MULTI_TASK_FILES.items()}
    else:
        tables = _read_tasks(root)
    for table in tables.values():
        table["image"] = f"{folder.as_posix()}/cropped_aligned/" + table["image"]
    tables["train"] = _leave_out_videos(
        tables["train"], set(tables["validation"]["subject"]), folder
    )
    return as_splits(tables, "aff_wild2", folder, action_units)


def _find_annotations(folder: Path) -> Path:
    marks = [name for names, _ in TASKS for name in names] + [MULTI_TASK_FILES["train"]]
    places = [
        folder,
        *sorted(
            path for path in folder.glob("*") if path.is_dir() and path.name != "cropped_aligned"
        ),
    ]
    roots = [place for place in places if any((place / mark).exists() for mark in marks)]
    if len(roots) != 1:
        raise ValueError(
            f"{folder}: the annotations of one edition must be here, one of {marks}; "
            f"found {len(roots)}"
        )
    found = [mark for mark in marks if (roots[0] / mark).exists()]
    if len(found) > 1 and MULTI_TASK_FILES["train"] in found:
        raise ValueError(f"{roots[0]}: the annotations of two editions are here: {found}")
    return roots[0]


def _leave_out_videos(table: pd.DataFrame, videos: set[str], folder: Path) -> pd.DataFrame:
    inside = table["subject"].isin(videos)
    if inside.any():
        logger.warning(
            "%s: %d training frames of %d videos are left out: another task validates on them",
            folder,
            inside.sum(),
            table["subject"][inside].nunique(),
        )
    return table[~inside]


# ---- the tasks' files ----------------------------------------------------------------------


def _read_tasks(root: Path) -> dict[str, pd.DataFrame]:
    tables: dict[str, dict[str, list[pd.DataFrame]]] = {split: {} for split in SPLIT_FOLDERS}
    for names, read in TASKS:
        places = [root / name for name in names if (root / name).is_dir()]
        if len(places) > 1:
            raise ValueError(
                f"{root}: the annotations of two editions are here: "
                f"{[place.name for place in places]}"
            )
        if not places:
            logger.warning(
                "%s: none of %s is here; this task has no labels", root, ", ".join(names)
            )
            continue
        for split, folders in SPLIT_FOLDERS.items():
            for path in _find_files(places[0], folders):
                tables[split].setdefault(path.stem, []).append(read(path))
    for split, videos in tables.items():
        uneven = [
            video for video, tasks in videos.items() if len({len(task) for task in tasks}) > 1
        ]
        if uneven:
            logger.warning(
                "%s: %s: the tasks' files of %d videos differ in length, such as those of %s",
                *(root, split, len(uneven), uneven[0]),
            )
    return {
        split: pd.concat([_join_tasks(*item) for item in videos.items()])
        for split, videos in tables.items()
    }


def _find_files(task: Path, folders: tuple[str, ...]) -> list[Path]:
    files = sorted(path for name in folders for path in (task / name).glob("*.txt"))
    if not files:
        raise ValueError(f"{task}: no {' or '.join(folders)} with <video>.txt in it")
    return files


def _join_tasks(video: str, tasks: list[pd.DataFrame]) -> pd.DataFrame:
    """Merge the labels of all tasks into one row per frame."""
    frames = pd.concat(tasks, axis=1)
    images = [f"{video}/{frame:05d}.jpg" for frame in frames.index]
    return frames.assign(image=images, subject=video).reset_index(drop=True)


def _number_frames(table: TextTable, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """Index the columns by frame: line n after the header is frame n."""
    return pd.DataFrame(columns, index=np.array(table.lines, dtype=np.int64) - 1)


def _read_valence_arousal(path: Path) -> pd.DataFrame:
    table = read_text_table(path, delimiter=",", width=2)
    if [name.lower() for name in table.header] != ["valence", "arousal"]:
        raise ValueError(
            f"{path}:1: the header must be valence,arousal; got {','.join(table.header)}"
        )
    return _number_frames(table, _pick_valence_arousal(table, 0))


def _read_expression(path: Path) -> pd.DataFrame:
    table = read_text_table(path, delimiter=",", width=1)
    classes = tuple(name.lower() for name in table.header)
    if classes not in (CLASSES, CLASSES[:-1]):
        raise ValueError(
            f"{path}:1: the header must be {','.join(CLASSES)}; got {','.join(table.header)}"
        )
    return _number_frames(table, {"expression": read_expressions(table, 0, classes, none=(-1,))})


def _read_action_units(path: Path) -> pd.DataFrame:
    table = read_text_table(path, delimiter=",")
    return _number_frames(table, _pick_action_units(table, 0, _read_units(table)))


def _read_units(table: TextTable) -> tuple[int, ...]:
    """Return the units in the header (`AU1` or `AU01`); they must be an edition's set."""
    units = tuple(int(name[2:]) if re.fullmatch(r"(?i)au\d+", name) else 0 for name in table.header)
    if units not in (CHALLENGE_UNITS, FIRST_EDITION_UNITS):
        raise ValueError(
            f"{table.path}:1: the header must name units {CHALLENGE_UNITS} or "
            f"{FIRST_EDITION_UNITS}; got {table.header}"
        )
    return units


def _pick_valence_arousal(table: TextTable, column: int) -> dict[str, np.ndarray]:
    valence, arousal = (
        read_numbers(table, column + place, name, least=-1, most=1, none=(-5,))
        for place, name in enumerate(("valence", "arousal"))
    )
    ignored = np.isnan(valence) | np.isnan(arousal)
    return {
        "valence": np.where(ignored, np.nan, valence),
        "arousal": np.where(ignored, np.nan, arousal),
    }


def _pick_action_units(
    table: TextTable, column: int, units: tuple[int, ...]
) -> dict[str, np.ndarray]:
    return {
        action_unit_column(unit): read_presence(table, column + place, f"AU {unit}", none=(-1,))
        for place, unit in enumerate(units)
    }


TASKS: tuple[tuple[tuple[str, ...], Callable[[Path], pd.DataFrame]], ...] = (
    (("VA_Estimation_Challenge", "VA_Set"), _read_valence_arousal),
    (("EXPR_Recognition_Challenge", "EXPR_Classification_Challenge", "EXPR_Set"), _read_expression),
    (("AU_Detection_Challenge", "AU_Set"), _read_action_units),
)
"""Folder names of each task, over the editions, and the reader of one video's file."""


# ---- s-Aff-Wild2 ---------------------------------------------------------------------------


def _read_multi_task(path: Path) -> pd.DataFrame:
    """Read rows `video/00001.jpg,valence,arousal,expression,12 units`; the header is optional."""
    table = read_text_table(path, delimiter=",", width=4 + len(CHALLENGE_UNITS))
    check_unique(table, 0)
    images = table.cells(0)
    for row, image in enumerate(images):
        if image.count("/") != 1:
            raise table.error(row, f"an image must be <video>/<frame>.jpg; got {image!r}")
    return pd.DataFrame(
        {
            "image": images,
            "subject": [image.partition("/")[0] for image in images],
            **_pick_valence_arousal(table, 1),
            "expression": read_expressions(table, 3, CLASSES, none=(-1,)),
            **_pick_action_units(table, 4, CHALLENGE_UNITS),
        }
    )
