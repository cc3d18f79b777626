"""What `predict` and `compare` draw: the page or picture of --report, the clip of --annotate."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

REPORT_HELP = (
    "a page (.html, nothing else needed to read it) or a picture (.png, needs the demo extra)"
)


def add_drawn(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `predict`."""
    parser.add_argument(
        "--report",
        type=Path,
        help=f"{REPORT_HELP}; a page takes several clips and people, a picture one",
    )
    parser.add_argument(
        "--annotate",
        type=Path,
        metavar="OUT.mp4",
        help="the clip with boxes, affect and the estimates so far drawn on its frames, sound kept; one clip. "
        "Every frame of it goes through the extractor",
    )


def check_report(path: Path | None, *, several: bool = False) -> None:
    """Raises ValueError where no report could be written, before any work.

    Args:
        path: of --report.
        several: more than one clip or person may come.
    """
    if path is None:
        return
    suffix = path.suffix.lower()
    if suffix not in (".html", ".htm", ".png"):
        raise ValueError(
            f"{path}: a report is written as .html or .png; got {path.suffix or 'no ending'!r}"
        )
    from mma_mrnnet.files import check_can_write_file

    check_can_write_file(path)
    if suffix == ".png":
        if several:
            raise ValueError(
                f"{path}: a picture shows one person of one clip; a page (.html) shows several"
            )
        from mma_mrnnet.report.picture import figure_class

        figure_class()


def check_drawn(args: argparse.Namespace, clips: Sequence[str], *, of_tables: bool) -> None:
    """Raises ValueError for drawings that do not go with the clips, before any of them is read."""
    check_report(args.report, several=len(clips) > 1 or args.all_faces)
    if args.annotate is None:
        return
    if of_tables:
        raise ValueError("--annotate is for videos; this model reads tables of features")
    if len(clips) > 1:
        raise ValueError(f"--annotate is of one clip; got {len(clips)}")
    from mma_mrnnet.files import check_can_write_file
    from mma_mrnnet.video.writing import check_target

    check_target(Path(clips[0]), args.annotate)
    check_can_write_file(args.annotate)


def check_clips_stay(clips: Sequence[str], outputs: Sequence[Path | None]) -> None:
    """Raises ValueError where something would be written over a clip: a table, or a photo read as a clip of a frame."""
    for path in (path for path in outputs if path is not None and path.exists()):
        if any(Path(clip).exists() and path.samefile(clip) for clip in clips):
            raise ValueError(f"{path}: is one of the clips, which are never written over")


def not_written(path: Path, error: Exception) -> str:
    """Why a file is not there, without the name that it had on the way."""
    return f"{path}: not written: {getattr(error, 'strerror', None) or error}"


class Drawings:
    """What was asked to be drawn, as the clips come in.

    Args:
        args: of `predict`.
        fps: of the table of frames, which a report shows too; None for every frame.
    """

    def __init__(self, args: argparse.Namespace, fps: float | None) -> None:
        self._report, self._annotate = args.report, args.annotate
        self._fps = fps
        self._sections: list[str] = []
        self._title = ""
        self._pictured: object | None = None
        self._annotated: list = []

    def add(self, people: list) -> list:
        """Takes the people of a clip; returns them with the frames that the tables are to hold.

        For --annotate they come with every frame.
        """
        if self._annotate is not None:
            self._annotated = people
            people = [_thinned(each, self._fps) for each in people]
        if self._report is None:
            return people
        if self._report.suffix.lower() == ".png":
            self._pictured = people[0]
        else:
            from mma_mrnnet.prediction import shown
            from mma_mrnnet.report.page import clip_section

            self._title = (
                shown(Path(people[0].file).name)
                if not self._sections
                else f"{len(self._sections) + 1} clips"
            )
            self._sections.append(clip_section(people))
        return people

    def write(self) -> list[str]:
        """Writes what was asked, each whatever became of the other; what could not be written, in words."""
        failed = []
        for path, write in (
            (self._report, self._write_report),
            (self._annotate, self._write_annotated),
        ):
            try:
                write()
            except (OSError, ValueError) as error:
                failed.append(not_written(path, error))
        return failed

    def _write_report(self) -> None:
        if self._sections:
            from mma_mrnnet.report.page import page_of, write_page

            write_page(page_of(self._title, self._sections), self._report)
            _say(self._report)
        elif self._pictured is not None:
            from mma_mrnnet.report.picture import draw_prediction

            draw_prediction(self._pictured, self._report)
            _say(self._report)

    def _write_annotated(self) -> None:
        # A file that could not be read has no frames, and was reported as such.
        if self._annotated and len(self._annotated[0].frames):
            from mma_mrnnet.report.annotation import annotate_video

            for lost in annotate_video(self._annotated, self._annotate):
                print(f"mma-mrnnet: {self._annotate}: {lost}", file=sys.stderr)
            _say(self._annotate)


def _thinned(prediction: object, fps: float | None) -> object:
    """The prediction with the frames of a rate alone, out of all of them."""
    from mma_mrnnet.video.reading import FrameClock

    clock = FrameClock(fps)
    kept = prediction.frames["time_s"].map(clock.keeps).astype(bool)
    return replace(prediction, frames=prediction.frames[kept].reset_index(drop=True))


def _say(path: Path) -> None:
    print(f"wrote {path}", file=sys.stderr)
