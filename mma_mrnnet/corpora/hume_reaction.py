"""Hume-Reaction, in the layouts of MuSe 2022 and ABAW5 (ERI)."""

import logging
import math
from collections.abc import Callable, Container
from pathlib import Path

import numpy as np

from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import parse_numbers, read_text_table

PROVENANCE = Provenance("hume", "research-only", labels="human")

logger = logging.getLogger(__name__)

CROPS_FPS = 2.0  # of the published crops, approximately

SPLIT_NAMES = {"train": "train", "devel": "validation", "val": "validation", "test": "test"}
VIDEO_FOLDERS = {"train": ("train",), "validation": ("val", "devel"), "test": ("test",)}

Labels = dict[str, dict[str, float]]


def load_hume_reaction(folder: str | Path, clips_from: str = "auto") -> list[ClipFile]:
    """Read the clips of Hume-Reaction, with labels as published, sorted by id.

    Layouts: `labels.csv` and `partition.csv` (MuSe 2022), or `data_info.csv`, read by column
    position (ABAW5). The log counts missing ids. Training clips without a file are dropped.
    Validation and test clips are kept, so that each gets a prediction: `path` is the expected
    place, and missing labels are NaN. A split without any file is dropped. No layout names people.

    `clips_from` is `faces` (crops `feats/Faces/<id>/<int>.jpg`), `videos`
    (`{train,val,test}/mp4/<id>.mp4`), `auto` (crops if that folder exists, else videos), or a
    feature set (`feats/<SET>/<id>.csv`).

    Raises:
        ValueError: an unknown layout or feature set, a wrong table, a label out of range, or no
            clip at all; the message starts with file and line.
    """
    folder = Path(folder)
    if (folder / "labels.csv").is_file() and (folder / "partition.csv").is_file():
        labels, splits = (
            _read_labels(folder / "labels.csv"),
            _read_partition(folder / "partition.csv"),
        )
    elif (folder / "data_info.csv").is_file():
        labels, splits = _read_data_info(folder / "data_info.csv")
    else:
        raise ValueError(
            f"{folder}: neither labels.csv with partition.csv (MuSe 2022) nor data_info.csv "
            "(ABAW5) here"
        )
    place, where = _find_clips(folder, clips_from)
    unlabelled = dict.fromkeys(REACTIONS, math.nan)
    clips, without_label, missing = [], [], []
    for clip_id, split in sorted(splits.items()):
        if clip_id not in labels and split == "train":
            without_label.append(clip_id)
            continue
        clip = ClipFile(
            clip_id,
            place(clip_id, split),
            "",
            split,
            labels.get(clip_id, unlabelled),
            f"[{clip_id}]",
        )
        clips.append(clip)
        if not clip.files:
            missing.append(clip)
    _log_ids("left out", "with a split but no labels", without_label)
    _log_ids("left out", "with labels but no split", sorted(labels.keys() - splits.keys()))
    absent = {clip.clip_id for clip in missing}
    here = {clip.split for clip in clips if clip.clip_id not in absent}
    if not here:
        raise ValueError(f"{folder}: no clip of {len(splits)} ids in {where}")
    left_out = {clip.clip_id for clip in missing if clip.split == "train" or clip.split not in here}
    _log_ids("left out", f"that are not in {where}", sorted(left_out))
    _log_ids(
        "kept for the mean training label", f"that are not in {where}", sorted(absent - left_out)
    )
    return [clip for clip in clips if clip.clip_id not in left_out]


def _find_clips(folder: Path, clips_from: str) -> tuple[Callable[[str, str], Path], str]:
    """Return a function (id, split) -> expected path, and a description of that place."""
    faces = folder / "feats" / "Faces"
    if clips_from == "faces" and not faces.is_dir():
        raise ValueError(f"{faces}: no such folder; --clips_from faces needs it")
    if clips_from == "faces" or (clips_from == "auto" and faces.is_dir()):
        return lambda clip_id, split: faces / clip_id, "feats/Faces/<id>/"
    if clips_from in ("auto", "videos"):
        return lambda clip_id, split: _find_video(
            folder, clip_id, split
        ), "train|val|test/mp4/<id>.mp4"
    sets = {
        path.name: path
        for path in sorted(folder.glob("feats/*"))
        if path.is_dir() and path != faces
    }
    if clips_from not in sets:
        raise ValueError(
            f"{folder / 'feats'}: no set of features is called {clips_from!r}; "
            f"there are: {', '.join(sets) or 'none'}"
        )
    return (
        lambda clip_id, split: sets[clips_from] / f"{clip_id}.csv",
        f"feats/{clips_from}/<id>.csv",
    )


def _find_video(folder: Path, clip_id: str, split: str) -> Path:
    paths = [folder / name / "mp4" / f"{clip_id}.mp4" for name in VIDEO_FOLDERS[split]]
    return next((path for path in paths if path.is_file()), paths[0])


def _log_ids(what: str, which: str, ids: list[str]) -> None:
    if ids:
        logger.warning("%s %d ids %s, for example %s", what, len(ids), which, ids[0])


def _read_rows(path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the header (empty if there is none), and (place, cells) of all other lines."""
    table = read_text_table(path, delimiter=",", has_header=False)
    places = [f"{path}:{line}" for line in table.lines]
    rows = list(zip(places, table.rows, strict=True))
    if any(letter.isdigit() for letter in rows[0][1][0]):  # an id has a digit
        return [], rows
    return rows[0][1], rows[1:]


def _read_labels(path: Path) -> Labels:
    """Read `File_ID` and the seven reactions; the header must have the corpus's order."""
    header, rows = _read_rows(path)
    if header[1:] != list(REACTIONS):
        raise ValueError(
            f"{path}:1: the columns must be File_ID, {', '.join(REACTIONS)}; "
            f"got {', '.join(header)}"
        )
    labels: Labels = {}
    for place, cells in rows:
        labels[_read_id(cells[0], labels, place)] = _read_seven(cells[1:], place)
    return labels


def _read_partition(path: Path) -> dict[str, str]:
    """Read the split by id: the id is column 0, the split the last one."""
    splits: dict[str, str] = {}
    for place, cells in _read_rows(path)[1]:
        splits[_read_id(cells[0], splits, place)] = _read_split(cells[-1], place)
    return splits


def _read_data_info(path: Path) -> tuple[Labels, dict[str, str]]:
    """Read id (column 0), split (1) and labels (2 to 8); ignore age and country."""
    labels: Labels = {}
    splits: dict[str, str] = {}
    for place, cells in _read_rows(path)[1]:
        clip_id = _read_id(cells[0], splits, place)
        splits[clip_id] = _read_split(cells[1], place)
        labels[clip_id] = _read_seven(cells[2 : 2 + len(REACTIONS)], place)
    return labels, splits


def _read_id(text: str, seen: Container[str], place: str) -> str:
    """Strip the brackets of an id: `[00042]` is clip 00042."""
    clip_id = text.removeprefix("[").removesuffix("]")
    if not clip_id.isalnum() or clip_id in seen:
        problem = "there twice" if clip_id in seen else "no id such as [00042]"
        raise ValueError(f"{place}: {text!r} is {problem}")
    return clip_id


def _read_split(text: str, place: str) -> str:
    if text.lower() not in SPLIT_NAMES:
        raise ValueError(
            f"{place}: the split must be one of {', '.join(SPLIT_NAMES)}; got {text!r}"
        )
    return SPLIT_NAMES[text.lower()]


def _read_seven(cells: list[str], place: str) -> dict[str, float]:
    values, text = parse_numbers(cells)
    if text is not None or len(cells) != len(REACTIONS):
        raise ValueError(f"{place}: labels must be {len(REACTIONS)} numbers; got {cells}")
    if not (np.isnan(values) | ((values >= 0) & (values <= 1))).all():
        raise ValueError(f"{place}: labels must be in [0, 1]; got {values.tolist()}")
    return dict(zip(REACTIONS, values.tolist(), strict=True))
