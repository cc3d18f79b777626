"""A user's own clips with their intensities in metadata.csv, laid out as Hugging Face's `videofolder` is."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mma_mrnnet.crops.store import INDEX, METADATA, read_index
from mma_mrnnet.features.records import CLIP_SPLITS, ClipFile

NOT_TARGETS = ("file_name", "subject", "split")
TABLE_COLUMNS = (
    "file",
    "track",
    "duration_s",
    "frames_sampled",
    "frames_with_face",
    "error",
    "note",
)
"""Columns of the table that `mma-mrnnet predict` writes beside the targets."""


@dataclass(frozen=True)
class _Row:
    """A line of a metadata file: where it stands, and its cells by column."""

    place: str
    folder: Path
    split: str
    cells: dict[str, str]


def load_clip_folder(folder: str | Path) -> list[ClipFile]:
    """The clips of `{train,validation,test}/metadata.csv`, or of one `metadata.csv` at the top with a `split` column.

    Columns: `file_name`, a video or a folder of crops as `mma-mrnnet crop` makes it, relative to the metadata file;
    `subject`, optional, the person; every other column is a target with numbers in [0, 1], empty where unlabelled.

    Args:
        folder: holds one of the two layouts; `test` is optional.

    Returns:
        The clips, file by file and line by line.

    Raises:
        ValueError: a layout, line, label or clip that is not as described, a subject in two splits, or a target
            without labels in train or validation; the message starts with the file, and the line where there is one.
    """
    folder = Path(folder)
    targets, rows = _read_layout(folder)
    clips: list[ClipFile] = []
    places: dict[Path, str] = {}
    split_of: dict[str, str] = {}
    for row in rows:
        clip = _clip_of(row, folder, targets)
        resolved = clip.path.resolve()
        if resolved in places:
            raise ValueError(
                f"{row.place}: {row.cells['file_name']} is listed twice, first in {places[resolved]}"
            )
        places[resolved] = row.place
        if clip.subject and split_of.setdefault(clip.subject, clip.split) != clip.split:
            raise ValueError(
                f"{row.place}: subject {clip.subject!r} is in {clip.split} and in {split_of[clip.subject]}; "
                "a person may be in one split only"
            )
        clips.append(clip)
    _check_labelled(folder, targets, clips)
    return clips


def _read_layout(folder: Path) -> tuple[list[str], list[_Row]]:
    """Target names and all rows of either layout."""
    if (folder / METADATA).is_file():
        header, rows = _read_table(folder / METADATA, None)
        return _targets_of(folder / METADATA, header), rows
    targets: list[str] | None = None
    first = ""
    rows = []
    for split in CLIP_SPLITS:
        path = folder / split / METADATA
        if not path.is_file():
            if split == "test":
                continue
            raise ValueError(f"{folder}: neither {METADATA} nor {split}/{METADATA} is here")
        header, found = _read_table(path, split)
        names = _targets_of(path, header)
        if targets is not None and names != targets:
            raise ValueError(f"{path}:1: the targets are {names}; in {first} they are {targets}")
        targets, first = names, first or str(path)
        rows += found
    return targets or [], rows


def _read_table(path: Path, split: str | None) -> tuple[list[str], list[_Row]]:
    """Header and rows of a metadata file; the split of each row from its column where `split` is None."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, needs_split=split is None)
            return header, list(_rows_of(path, reader, header, split))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table in UTF-8: {error}") from error


def _rows_of(
    path: Path, reader: Iterator[list[str]], header: list[str], split: str | None
) -> Iterator[_Row]:
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{path}:{reader.line_num}"
        if len(cells) != len(header):
            raise ValueError(f"{place}: {len(cells)} cells where the header has {len(header)}")
        named = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        row_split = named["split"] if split is None else split
        if row_split not in CLIP_SPLITS:
            raise ValueError(
                f"{place}: split must be one of {', '.join(CLIP_SPLITS)}; got {row_split!r}"
            )
        if split is not None and named.get("split", split) != split:
            raise ValueError(f"{place}: split is {named['split']!r} in the folder {split}")
        yield _Row(place, path.parent, row_split, named)


def _check_header(path: Path, header: list[str], *, needs_split: bool) -> None:
    needed = ("file_name", "split") if needs_split else ("file_name",)
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(f"{path}:1: columns {missing} are missing; found {header}")
    if len(set(header)) != len(header) or "" in header:
        raise ValueError(f"{path}:1: every column needs a name of its own; found {header}")


def _targets_of(path: Path, header: list[str]) -> list[str]:
    targets = [name for name in header if name not in NOT_TARGETS]
    if not targets:
        raise ValueError(f"{path}:1: no target column beside {header}; at least one is needed")
    taken = [name for name in targets if name in TABLE_COLUMNS]
    if taken:
        raise ValueError(
            f"{path}:1: targets cannot be called {taken}: the tables of predictions use these names"
        )
    return targets


def _clip_of(row: _Row, folder: Path, targets: list[str]) -> ClipFile:
    name = row.cells["file_name"]
    path = row.folder / name
    if not name or not path.exists():
        raise ValueError(f"{row.place}: the clip {name!r} is not in {row.folder}")
    if path.is_dir() and read_index(path) is None:
        raise ValueError(
            f"{row.place}: {name!r} is a folder without {INDEX}, not one that `mma-mrnnet crop` made"
        )
    labels = {target: _label(row.cells[target], target, row.place) for target in targets}
    clip_id = (row.folder.relative_to(folder) / name).as_posix()
    return ClipFile(clip_id, path, row.cells.get("subject", ""), row.split, labels, listed_as=name)


def _label(text: str, target: str, place: str) -> float:
    """The number in [0, 1]; NaN for an empty cell."""
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or 0 <= value <= 1):
        raise ValueError(f"{place}: {target} must be a number in [0, 1], or empty; got {text!r}")
    return value


def _check_labelled(folder: Path, targets: list[str], clips: list[ClipFile]) -> None:
    for split in ("train", "validation"):
        chosen = [clip for clip in clips if clip.split == split]
        if not chosen:
            raise ValueError(f"{folder}: no clip in {split}")
        for target in targets:
            if all(math.isnan(clip.labels[target]) for clip in chosen):
                raise ValueError(f"{folder}: no clip of {split} is labelled with {target!r}")
