"""A user's own clips, with intensities in metadata files as in the Hub's `videofolder`."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mma_mrnnet.crops.store import INDEX, read_index
from mma_mrnnet.features.records import CLIP_SPLITS, ClipFile, check_inside
from mma_mrnnet.tables.cells import parse_number, read_text_table

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NOT_TARGETS = ("file_name", "subject", "split")
RESERVED = ("file", "track", "duration_s", "frames_sampled", "frames_with_face", "error", "note")
"""Columns that `mma-mrnnet predict` writes beside the targets."""


@dataclass(frozen=True)
class LabelChoice:
    """Target columns of a metadata file, as shell-style patterns, and their scale.

    Empty `targets` means all columns that can be targets. The ratings in `scale` become 0 and 1.
    """

    targets: Sequence[str] = ()
    ignore: Sequence[str] = ()
    scale: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class _Row:
    place: str
    folder: Path
    split: str
    cells: dict[str, str]


def load_clip_folder(folder: str | Path, choice: LabelChoice | None = None) -> list[ClipFile]:
    """Read the clips of a folder with metadata files, with labels scaled to [0, 1].

    Layouts: `{train,validation,test}/metadata.csv` (`test` is optional), or one `metadata.csv`
    with a column `split`; `.jsonl` and `.parquet` work too. Columns:

    - `file_name`: a video, a table of features or a folder of stored crops, relative to the
      metadata file;
    - `subject`: the person (optional);
    - all others: targets. Empty cells and words for "no number" (`NA`, `-nan(ind)`, `#N/A` ...)
      are unlabelled.

    `choice` selects the targets; None takes all, with labels in [0, 1].

    Raises:
        ValueError: a wrong layout, line, label or clip, a subject in two splits, or a target
            without labels in train or validation; the message starts with file and line.
    """
    folder, choice = Path(folder), choice or LabelChoice()
    targets, rows = _read_layout(folder, choice)
    clips: list[ClipFile] = []
    places: dict[Path, str] = {}
    split_of: dict[str, str] = {}
    for row in rows:
        clip = _read_clip(row, folder, targets, choice.scale)
        resolved = clip.path.resolve()
        if resolved in places:
            raise ValueError(
                f"{row.place}: {row.cells['file_name']} is listed twice, first in "
                f"{places[resolved]}"
            )
        places[resolved] = row.place
        if clip.subject and split_of.setdefault(clip.subject, clip.split) != clip.split:
            raise ValueError(
                f"{row.place}: subject {clip.subject!r} is in {clip.split} and in "
                f"{split_of[clip.subject]}; a person may be in one split only"
            )
        clips.append(clip)
    _check_labelled(folder, targets, clips)
    return clips


def _find_metadata(folder: Path) -> Path | None:
    paths = [folder / name for name in METADATA_FILES]
    return next((path for path in paths if path.is_file()), None)


def _read_layout(folder: Path, choice: LabelChoice) -> tuple[list[str], list[_Row]]:
    path = _find_metadata(folder)
    if path is not None:
        return _read_metadata(path, None, choice)
    targets: list[str] | None = None
    first = ""
    rows = []
    for split in CLIP_SPLITS:
        path = _find_metadata(folder / split)
        if path is None and split == "test":
            continue
        if path is None:
            name = METADATA_FILES[0]
            raise ValueError(f"{folder}: neither {name} nor {split}/{name} is here")
        names, found = _read_metadata(path, split, choice)
        if targets is not None and names != targets:
            raise ValueError(f"{path}:1: the targets are {names}; in {first} they are {targets}")
        targets, first = names, first or str(path)
        rows += found
    return targets or [], rows


def _read_metadata(
    path: Path, split: str | None, choice: LabelChoice
) -> tuple[list[str], list[_Row]]:
    """Return target names and rows; if `split` is None, the file's column gives the split."""
    table = read_text_table(path)
    header = table.header
    needed = ("file_name", "split") if split is None else ("file_name",)
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(f"{path}:1: columns {missing} are missing; found {header}")
    if len(set(header)) != len(header) or "" in header:
        raise ValueError(f"{path}:1: every column needs a name of its own; found {header}")
    named = [
        (f"{path}:{line}", dict(zip(header, cells, strict=True)))
        for line, cells in zip(table.lines, table.rows, strict=True)
    ]
    return _choose_targets(path, header, choice), list(_check_splits(path, named, split))


def _check_splits(
    path: Path, rows: list[tuple[str, dict[str, str]]], split: str | None
) -> Iterator[_Row]:
    for place, cells in rows:
        own = cells["split"] if split is None else split
        if own not in CLIP_SPLITS:
            raise ValueError(f"{place}: split must be one of {', '.join(CLIP_SPLITS)}; got {own!r}")
        if cells.get("split", own) != own:
            raise ValueError(f"{place}: split is {cells['split']!r} in the folder {own}")
        yield _Row(place, path.parent, own, cells)


def _choose_targets(path: Path, header: list[str], choice: LabelChoice) -> list[str]:
    free = [name for name in header if name not in NOT_TARGETS]
    wanted = choice.targets or ["*"]
    unknown = [
        pattern
        for pattern in [*choice.targets, *choice.ignore]
        if not any(fnmatchcase(name, pattern) for name in free)
    ]
    if unknown:
        raise ValueError(f"{path}:1: no column {', '.join(unknown)}; found {', '.join(free)}")
    targets = [
        name
        for name in free
        if any(fnmatchcase(name, pattern) for pattern in wanted)
        and not any(fnmatchcase(name, pattern) for pattern in choice.ignore)
    ]
    if not targets:
        raise ValueError(f"{path}:1: no target column beside {header}; at least one is needed")
    taken = [name for name in targets if name in RESERVED]
    if taken:
        raise ValueError(
            f"{path}:1: targets cannot be called {taken}: the tables of predictions use these "
            f"names (--ignore {' '.join(taken)} leaves them out)"
        )
    return targets


def _read_clip(row: _Row, folder: Path, targets: list[str], scale: tuple[float, float]) -> ClipFile:
    name = row.cells["file_name"]
    check_inside(name, row.folder, folder, row.place)
    path = row.folder / name
    # os.path: False, not an error, for a name that no file can have; False for a named pipe.
    if not name or not (os.path.isfile(path) or os.path.isdir(path)):  # noqa: PTH112, PTH113
        raise ValueError(f"{row.place}: the clip {name!r:.200} is not in {row.folder}")
    if path.is_dir() and read_index(path) is None:
        raise ValueError(
            f"{row.place}: {name!r} is a folder without {INDEX}, "
            "not one that `mma-mrnnet crop` made"
        )
    labels = {
        target: _read_label(row.cells[target], target, row.place, scale) for target in targets
    }
    clip_id = (row.folder.relative_to(folder) / name).as_posix()
    return ClipFile(clip_id, path, row.cells.get("subject", ""), row.split, labels, listed_as=name)


def _read_label(text: str, target: str, place: str, scale: tuple[float, float]) -> float:
    """Return the label in [0, 1]; NaN if unlabelled."""
    low, high = scale
    value = parse_number(text)
    if value is None:
        raise ValueError(
            f"{place}: {target} must be a number in [{low:g}, {high:g}], or empty; got {text!r} "
            f"(--ignore {target} leaves the column out)"
        )
    if not (math.isnan(value) or low <= value <= high):
        raise ValueError(
            f"{place}: {target} must be a number in [{low:g}, {high:g}], or empty; got {text!r} "
            "(--label_range declares another scale, such as 1 7)"
        )
    return (value - low) / (high - low)


def _check_labelled(folder: Path, targets: list[str], clips: list[ClipFile]) -> None:
    for split in ("train", "validation"):
        chosen = [clip for clip in clips if clip.split == split]
        if not chosen:
            raise ValueError(f"{folder}: no clip in {split}")
        for target in targets:
            if all(math.isnan(clip.labels[target]) for clip in chosen):
                raise ValueError(f"{folder}: no clip of {split} is labelled with {target!r}")
