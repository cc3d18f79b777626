"""Crop a folder of videos into a tree of the same shape, and copy its metadata files."""

import contextlib
import csv
import io
import os
import time
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from mma_mrnnet.crops.store import METADATA, CropSettings, read_current_index
from mma_mrnnet.crops.workers import Outcome, Task, crop_clips
from mma_mrnnet.faces.detection import detector_path
from mma_mrnnet.files import locked, write_text
from mma_mrnnet.video.reading import VIDEO_SUFFIXES


@dataclass
class CropReport:
    """The result of a run over a folder.

    Attributes:
        failed: (video, reason) of clips without crops.
        warnings: (video, what was lost) of damaged clips with crops.
        without_face: videos without any face.
        frames: searched frames of all clips with an index.
        faces: how many of these frames had a face.
        tables: metadata files that were written.
        left_out: (place, reason) of lines, or whole tables, that were not copied.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    warnings: list[tuple[Path, str]] = field(default_factory=list)
    without_face: list[Path] = field(default_factory=list)
    frames: int = 0
    faces: int = 0
    tables: list[Path] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, video: Path, outcome: Outcome) -> None:
        """Count one clip, with crops or without."""
        if outcome.error is not None:
            self.failed.append((video, outcome.error))
            return
        self.frames += outcome.frames
        self.faces += outcome.faces
        if outcome.faces == 0:
            self.without_face.append(video)
        if outcome.warning is not None:
            self.warnings.append((video, outcome.warning))


def count_usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_files(folder: Path, suffixes: Container[str]) -> list[Path]:
    """Return the files below a folder with one of the suffixes, sorted, without hidden files."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    # macOS writes hidden files such as `._clip.mp4`.
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def crop_corpus(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: CropSettings,
    workers: int | None = None,
) -> CropReport:
    """Crop each `folder/a/clip.mp4` to `out/a/clip/00001.jpg` ...; copy each `metadata.csv`.

    Clips with crops of the same video and settings are skipped. Crops of a clip appear when they
    are complete, so that another call continues a stopped run. `workers` None takes the number of
    usable cores.

    Raises:
        ValueError: no video, `out` is or contains `folder`, two clips have the same place, or
            another run is writing to `out`.
        OSError: the disk is full, or the detector's file is missing.
    """
    folder, out, start = Path(folder), Path(out), time.monotonic()
    clips = _assign_places(folder, out)
    detector_path()
    out.mkdir(parents=True, exist_ok=True)
    report = CropReport()
    with locked(out, "another run is making crops here; wait for it to end"):
        todo: list[Task] = []
        for video, place in clips.items():
            index = read_current_index(video, place, settings)
            if index is None:
                todo.append((video, place))
            else:
                report.skipped += 1
                report.add(video, Outcome(len(index.frames), index.faces, index.warning))
        results = crop_clips(todo, settings, workers or count_usable_cores())
        done = report.skipped
        bar = tqdm(total=len(clips), initial=done, desc="crops", unit="clip", disable=None)
        with bar, contextlib.closing(results):
            for (video, _), outcome in results:
                if outcome.disk_full:
                    raise OSError(
                        f"{out}: the disk is full; finished clips stay, and the same command goes "
                        "on there"
                    )
                report.done += outcome.error is None
                report.add(video, outcome)
                bar.update()
        failed = {video for video, _ in report.failed}
        cropped = {video: place for video, place in clips.items() if video not in failed}
        _copy_tables(folder, out, cropped, report)
    report.failed.sort()
    report.seconds = time.monotonic() - start
    return report


def _assign_places(folder: Path, out: Path) -> dict[Path, Path]:
    """Return each video's crop folder; raise ValueError if two are the same."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if folder.resolve().is_relative_to(out.resolve()):
        raise ValueError(
            f"{out}: crops need a folder of their own, which is not {folder} nor holds it"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file, not a folder to write to")
    videos = find_files(folder, VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f"{folder}: no video here; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
    clips = {video: (out / video.relative_to(folder)).with_suffix("") for video in videos}
    video_of: dict[Path, Path] = {}
    for video, place in clips.items():
        if video_of.setdefault(place, video) != video:
            raise ValueError(
                f"{video} and {video_of[place]} would both become {place}; rename one of them"
            )
    for video, place in clips.items():
        above = next((parent for parent in place.parents if parent in video_of), None)
        if above is not None:
            raise ValueError(
                f"{video} would be put inside the crops of {video_of[above]}; rename one of them"
            )
    return clips


def _copy_tables(folder: Path, out: Path, clips: dict[Path, Path], report: CropReport) -> None:
    """Copy metadata files: only lines with crops, with their folders as `file_name`."""
    for table in sorted(folder.rglob(METADATA)):
        if table.is_relative_to(out):
            continue
        target = out / table.relative_to(folder)
        try:
            header, rows = _read_table(table)
        except (ValueError, OSError) as error:
            report.left_out.append((str(table), str(error)))
            continue
        if target.is_file() and _names_videos(target):
            report.left_out.append(
                (str(table), f"{target} is here already and names videos: left alone")
            )
            continue
        column, kept = header.index("file_name"), []
        for line, row in rows:
            name = row[column].strip() if len(row) == len(header) else ""
            place = clips.get(Path(os.path.normpath(table.parent / name)))
            if place is None:
                reason = f"{name!r} has no crops" if name else "not a whole line"
                report.left_out.append((f"{table}:{line}", reason))
            else:
                name = Path(os.path.relpath(place, target.parent)).as_posix()
                kept.append([*row[:column], name, *row[column + 1 :]])
        if kept:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([header, *kept])
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, text.getvalue())
            report.tables.append(target)


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return header and (line number, cells); raise ValueError without a column `file_name`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [
                (reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"not a table in UTF-8: {error}") from error
    if "file_name" not in header:
        raise ValueError(f"has no column file_name; found {header}")
    return header, rows


def _names_videos(path: Path) -> bool:
    """Return whether a table names videos or is unreadable, so that it is not ours."""
    try:
        header, rows = _read_table(path)
    except (ValueError, OSError):
        return True
    column = header.index("file_name")
    names = [row[column].strip() for _, row in rows if len(row) > column]
    return any(
        Path(name).suffix.lower() in VIDEO_SUFFIXES and not (path.parent / name).is_dir()
        for name in names
    )
