"""Hume-Reaction as MuSe 2022 and as ABAW5 (ERI) published it; its feature tables (feats/<SET>/*.csv) are not read."""

import csv
import logging
import math
from pathlib import Path

from mma_mrnnet.data.records import ClipFile
from mma_mrnnet.model.labels import REACTIONS

logger = logging.getLogger(__name__)

CROPS_FPS = 2.0  # about how many crops of a second of video the organisers published

SPLIT_NAMES = {"train": "train", "devel": "validation", "val": "validation", "test": "test"}
VIDEO_FOLDERS = {"train": ("train",), "validation": ("val", "devel"), "test": ("test",)}

Labels = dict[str, dict[str, float]]


def load_hume_reaction(folder: str | Path) -> list[ClipFile]:
    """The clips whose faces or video are here, each label vector as it was published.

    Two layouts: `labels.csv` and `partition.csv` (MuSe 2022), or `data_info.csv`, read by position (ABAW5). With either
    the clips are the face crops `feats/Faces/<id>/<int>.jpg` where that folder exists, else the videos
    `train|val|test/mp4/<id>.mp4`. Everything is joined by id; ids that are missing somewhere are counted, logged and
    left out, but for test clips without labels, whose labels are NaN.

    Args:
        folder: the corpus's root, `c2_muse_reaction` in MuSe 2022.

    Returns:
        The clips in order of their ids; `subject` is empty, since neither layout names the person.

    Raises:
        ValueError: neither layout, a table that is not as published, a label out of range, or no clip at all; the
            message starts with the file, and the line where there is one.
    """
    folder = Path(folder)
    if (folder / "labels.csv").is_file() and (folder / "partition.csv").is_file():
        labels, splits = _read_labels(folder / "labels.csv"), _read_partition(folder / "partition.csv")
    elif (folder / "data_info.csv").is_file():
        labels, splits = _read_data_info(folder / "data_info.csv")
    else:
        raise ValueError(f"{folder}: neither labels.csv with partition.csv (MuSe 2022) nor data_info.csv (ABAW5) here")
    unlabelled = dict.fromkeys(REACTIONS, math.nan)
    clips, without_label, without_clip = [], [], []
    for clip_id, split in sorted(splits.items()):
        if clip_id not in labels and split != "test":
            without_label.append(clip_id)
            continue
        clip = _find_clip(folder, clip_id, split, labels.get(clip_id, unlabelled))
        if clip is None:
            without_clip.append(clip_id)
        else:
            clips.append(clip)
    _log_left_out("a split but no labels", without_label)
    _log_left_out("labels but no split", sorted(labels.keys() - splits.keys()))
    _log_left_out("neither faces nor video here", without_clip)
    if not clips:
        raise ValueError(f"{folder}: no clip of {len(splits)} ids in feats/Faces/<id>/ or train|val|test/mp4/<id>.mp4")
    return clips


def _find_clip(folder: Path, clip_id: str, split: str, labels: dict[str, float]) -> ClipFile | None:
    """The clip as crops where the corpus has crops, else as video; None where it is not there."""
    faces = folder / "feats" / "Faces"
    if faces.is_dir():
        clip = ClipFile(clip_id, faces / clip_id, "", split, labels)
        return clip if clip.path.is_dir() and clip.files else None
    paths = [folder / name / "mp4" / f"{clip_id}.mp4" for name in VIDEO_FOLDERS[split]]
    found = [path for path in paths if path.is_file()]
    return ClipFile(clip_id, found[0], "", split, labels) if found else None


def _log_left_out(what: str, ids: list[str]) -> None:
    if ids:
        logger.warning("left out %d ids with %s, for example %s", len(ids), what, ids[0])


def _read_table(path: Path, columns: int) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The header, empty where there is none, and (place, cells) of every other line; an id holds a digit."""
    header: list[str] = []
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for line in reader:
                cells = [cell.strip() for cell in line]
                place = f"{path}:{reader.line_num}"
                if not any(cells):
                    continue
                if reader.line_num == 1 and not any(letter.isdigit() for letter in cells[0]):
                    header = cells
                elif len(cells) < columns:
                    raise ValueError(f"{place}: {len(cells)} cells; at least {columns} are needed")
                else:
                    rows.append((place, cells))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table in UTF-8: {error}") from error
    return header, rows


def _read_labels(path: Path) -> Labels:
    """`File_ID`, then the seven reactions; the header must name them in the corpus's order."""
    header, rows = _read_table(path, 1 + len(REACTIONS))
    if header[1:] != list(REACTIONS):
        raise ValueError(f"{path}:1: the columns must be File_ID, {', '.join(REACTIONS)}; got {', '.join(header)}")
    labels: Labels = {}
    for place, cells in rows:
        labels[_new_id(cells[0], labels, place)] = _labels_of(cells[1 : 1 + len(REACTIONS)], place)
    return labels


def _read_partition(path: Path) -> dict[str, str]:
    """Split by id: column 0 is the id, the last one the split."""
    splits: dict[str, str] = {}
    for place, cells in _read_table(path, 2)[1]:
        splits[_new_id(cells[0], splits, place)] = _split_of(cells[-1], place)
    return splits


def _read_data_info(path: Path) -> tuple[Labels, dict[str, str]]:
    """Labels and split by id: column 0 is the id, 1 the split, 2 to 8 the labels; age and country are not read."""
    labels: Labels = {}
    splits: dict[str, str] = {}
    for place, cells in _read_table(path, 2 + len(REACTIONS))[1]:
        clip_id = _new_id(cells[0], splits, place)
        splits[clip_id] = _split_of(cells[1], place)
        labels[clip_id] = _labels_of(cells[2 : 2 + len(REACTIONS)], place)
    return labels, splits


def _new_id(text: str, seen: dict, place: str) -> str:
    """The id without its brackets: `[00042]` is clip 00042."""
    clip_id = text.removeprefix("[").removesuffix("]")
    if not clip_id.isalnum() or clip_id in seen:
        raise ValueError(f"{place}: {text!r} is {'there twice' if clip_id in seen else 'no id such as [00042]'}")
    return clip_id


def _split_of(text: str, place: str) -> str:
    if text.lower() not in SPLIT_NAMES:
        raise ValueError(f"{place}: the split must be one of {', '.join(SPLIT_NAMES)}; got {text!r}")
    return SPLIT_NAMES[text.lower()]


def _labels_of(cells: list[str], place: str) -> dict[str, float]:
    """The seven numbers in [0, 1]; NaN where a cell is empty or says so."""
    try:
        values = [float(cell) if cell else math.nan for cell in cells]
    except ValueError as error:
        raise ValueError(f"{place}: labels must be numbers: {error}") from error
    if not all(math.isnan(value) or 0 <= value <= 1 for value in values):
        raise ValueError(f"{place}: labels must be in [0, 1]; got {values}")
    return dict(zip(REACTIONS, values, strict=True))
