"""Outputs of `predict` and `compare`: printed lines, tables, a report, an annotated clip."""

import contextlib
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mma_mrnnet.cli.options import printable, say

if TYPE_CHECKING:
    import pandas as pd

    from mma_mrnnet.hub.facts import CheckpointFacts
    from mma_mrnnet.prediction import VideoPrediction
    from mma_mrnnet.prediction.checkpoint import Engine

BAR_LENGTH = 20  # characters for intensity 1
TABLES = ("out", "frames", "windows")


@dataclass(frozen=True)
class Targets:
    """Output paths by option; None if not requested."""

    out: Path | None = None
    frames: Path | None = None
    windows: Path | None = None
    report: Path | None = None
    annotate: Path | None = None

    def given(self) -> dict[str, Path]:
        """Return the requested paths by option."""
        paths = {field.name: getattr(self, field.name) for field in fields(self)}
        return {option: path for option, path in paths.items() if path is not None}

    def check(self) -> None:
        """Raise ValueError if a path cannot be written or is used twice. Called before any work."""
        from mma_mrnnet.tables.cells import check_table_path

        given = self.given()
        for option in TABLES:
            if option in given:
                check_table_path(given[option])
        check_report(self.report)
        for option, other in combinations(given, 2):
            if given[option].resolve() == given[other].resolve():
                raise ValueError(f"{given[option]}: --{option} and --{other} need a file each")

    def check_against(self, clips: Sequence[str], *, all_faces: bool, is_of_tables: bool) -> None:
        """Raise ValueError if the outputs do not fit the clips, or would overwrite one.

        Called before any clip is read. With `all_faces` a clip may give several people. Tables have
        no frames to draw on.
        """
        given = self.given()
        check_clips_stay(clips, [given[name] for name in (*TABLES, "report") if name in given])
        check_report(self.report, several=len(clips) > 1 or all_faces)
        if self.annotate is None:
            return
        if is_of_tables:
            raise ValueError("--annotate is for videos; this model reads tables of features")
        if len(clips) > 1:
            raise ValueError(f"--annotate takes one clip; got {len(clips)}")
        if os.path.isdir(clips[0]):  # noqa: PTH112 - the name may be invalid for a file
            raise ValueError(f"{clips[0]}: is a folder of crops, with no frames to draw on")
        from mma_mrnnet.files import check_can_write_file
        from mma_mrnnet.video.writing import check_target

        check_target(Path(clips[0]), self.annotate)
        check_can_write_file(self.annotate)


def check_report(path: Path | None, *, several: bool = False) -> None:
    """Raise ValueError if the report (None: no report) cannot be written. Called before any work.

    `several` means that more than one clip or person is possible.
    """
    if path is None:
        return
    suffix = path.suffix.lower()
    if suffix not in (".html", ".htm", ".png"):
        got = path.suffix or "no ending"
        raise ValueError(f"{path}: a report is written as .html or .png; got {got!r}")
    from mma_mrnnet.files import check_can_write_file

    check_can_write_file(path)
    if suffix == ".png":
        if several:
            raise ValueError(
                f"{path}: a picture shows one person of one clip; a page (.html) shows several"
            )
        from mma_mrnnet.report.picture import figure_class

        figure_class()


def check_clips_stay(clips: Sequence[str], outputs: Sequence[Path]) -> None:
    """Raise ValueError if an output would overwrite a clip."""
    for path in (path for path in outputs if path.exists()):
        if any(_is_same_file(path, clip) for clip in clips):
            raise ValueError(f"{path}: is one of the clips, which are never written over")


def _is_same_file(path: Path, clip: str) -> bool:
    with contextlib.suppress(OSError):  # missing file, URL or invalid name
        return path.samefile(clip)
    return False


class Outputs:
    """Collects and writes all outputs of `predict`.

    An error in one output does not stop the others, or other clips: `failed` keeps its message.
    `table_fps` is the frame rate of the table of frames and the report; None means every frame.
    """

    def __init__(
        self,
        targets: Targets,
        engine: "Engine",
        table_fps: float | None,
        window_s: float,
        hop_s: float,
    ) -> None:
        self.given = targets.given()
        self._engine = engine
        self._table_fps, self._window_s, self._hop_s = table_fps, window_s, hop_s
        self._rows: list[dict[str, object]] = []
        self._frames: list[pd.DataFrame] = []
        self._windows: list[pd.DataFrame] = []
        self._sections: list[str] = []
        self._title = ""
        self._pictured: VideoPrediction | None = None
        self._annotated: list[VideoPrediction] = []
        self.failed: list[str] = []

    def add(self, people: list["VideoPrediction"]) -> list["VideoPrediction"]:
        """Take one clip's people; return them with the frames of the tables (`--annotate`: all)."""
        if "annotate" in self.given:
            self._annotated = people
            people = [_keep_frames_at(each, self._table_fps) for each in people]
        for option, add in (
            ("out", self._add_rows),
            ("frames", self._add_frames),
            ("windows", self._add_windows),
            ("report", self._add_to_report),
        ):
            if option not in self.given:
                continue
            try:
                add(people)
            except Exception as error:  # the other clips keep their results
                reason = " ".join(str(error).split()) or type(error).__name__
                self.failed.append(f"{self.given[option]}: without {people[0].file}: {reason}")
        return people

    def to_json(self) -> dict[str, Any]:
        """Return the rows of the tables so far, JSON-serialisable; `add_json` takes them."""
        return {
            "out": self._rows,
            "frames": [_encode(part) for part in self._frames],
            "windows": [_encode(part) for part in self._windows],
            "failed": self.failed,
        }

    def add_json(self, rows: dict[str, Any]) -> None:
        """Add the rows of another `Outputs`."""
        self._rows += rows["out"]
        self._frames += [_decode(part) for part in rows["frames"]]
        self._windows += [_decode(part) for part in rows["windows"]]
        self.failed += rows["failed"]

    def write(self) -> None:
        """Write the requested outputs."""
        for option, path in self.given.items():
            try:
                if getattr(self, f"_write_{option}")(path):
                    say(f"wrote {path}")
            except Exception as error:  # such as a full disk; other outputs may still fit
                self.failed.append(describe_unwritten(path, error))

    def _add_rows(self, people: list["VideoPrediction"]) -> None:
        self._rows += [prediction.summary() for prediction in people]

    def _add_frames(self, people: list["VideoPrediction"]) -> None:
        self._frames += [prediction.frames for prediction in people]

    def _add_windows(self, people: list["VideoPrediction"]) -> None:
        from mma_mrnnet.prediction import shown
        from mma_mrnnet.prediction.streaming import sliding_windows

        for prediction in people:
            if prediction.error is not None:
                continue
            frames = prediction.frames
            if frames["time_s"].isna().any():
                file = prediction.file
                say(f"mma-mrnnet: {file}: no time stamps, so no windows")
                continue
            table = sliding_windows(
                frames["time_s"].to_numpy(),
                frames[list(self._engine.facts.input_names)].to_numpy("float32"),
                self._engine,
                None,
                self._window_s,
                self._hop_s,
            )
            table.insert(0, "file", shown(prediction.file))
            table.insert(1, "track", prediction.track)
            self._windows.append(table)

    def _add_to_report(self, people: list["VideoPrediction"]) -> None:
        if self.given["report"].suffix.lower() == ".png":
            self._pictured = people[0]
            return
        from mma_mrnnet.prediction import shown
        from mma_mrnnet.report.page import clip_section

        self._sections.append(clip_section(people))
        clips = len(self._sections)
        self._title = shown(Path(people[0].file).name) if clips == 1 else f"{clips} clips"

    def _write_out(self, path: Path) -> bool:
        import pandas as pd

        return _write_parts([pd.DataFrame(self._rows)] if self._rows else [], path)

    def _write_frames(self, path: Path) -> bool:
        return _write_parts(self._frames, path)

    def _write_windows(self, path: Path) -> bool:
        return _write_parts(self._windows, path)

    def _write_report(self, path: Path) -> bool:
        if self._pictured is not None:
            from mma_mrnnet.report.picture import draw_prediction

            draw_prediction(self._pictured, path)
        elif self._sections:
            from mma_mrnnet.report.page import page_of, write_page

            write_page(page_of(self._title, self._sections), path)
        return bool(self._pictured or self._sections)

    def _write_annotate(self, path: Path) -> bool:
        # An unreadable file has no frames, and its error was printed.
        if not self._annotated or not len(self._annotated[0].frames):
            return False
        from mma_mrnnet.report.annotation import annotate_video

        for lost in annotate_video(self._annotated, path):
            say(f"mma-mrnnet: {path}: {lost}")
        return True


def _keep_frames_at(prediction: "VideoPrediction", fps: float | None) -> "VideoPrediction":
    """Return the prediction with only the frames of this rate."""
    from mma_mrnnet.video.reading import FrameClock

    clock = FrameClock(fps)
    kept = prediction.frames["time_s"].map(clock.keeps).astype(bool)
    return replace(prediction, frames=prediction.frames[kept].reset_index(drop=True))


def _write_parts(parts: list["pd.DataFrame"], path: Path) -> bool:
    """Concatenate and write tables; return whether there were any."""
    import pandas as pd

    from mma_mrnnet.tables.cells import write_table

    if not parts:
        return False
    filled = [part for part in parts if len(part)] or parts[:1]
    write_table(pd.concat(filled, ignore_index=True), path)
    return True


def _encode(table: "pd.DataFrame") -> list[tuple[str, str, list]]:
    """Return (name, dtype, values) of each column."""
    return [(str(name), str(table[name].dtype), table[name].tolist()) for name in table]


def _decode(columns: list[tuple[str, str, list]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({name: pd.Series(cells, dtype=dtype) for name, dtype, cells in columns})


def describe_unwritten(path: Path, error: Exception) -> str:
    """Say why a file was not written; hides temporary names in the error."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{path}: not written: {reason}"


# Lines -------------------------------------------------------------------------------------------


def print_prediction(
    prediction: "VideoPrediction", *, all_faces: bool = False, as_json: bool = False
) -> None:
    """Print one person's intensities to stdout, and warnings and errors to stderr."""
    from mma_mrnnet.prediction import shown

    file = shown(prediction.file)
    name = f"{file}, track {prediction.track}" if all_faces else file
    if as_json:
        print(prediction.to_json())
    if prediction.warning:
        say(f"mma-mrnnet: {name}: {prediction.warning}")
    if prediction.error is not None:
        say(f"mma-mrnnet: {name}: {prediction.error}")
        return
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    faces = f"a face in {prediction.frames_with_face} of {prediction.frames_sampled} frames"
    if not as_json:
        print(printable(f"{name}: {length}{faces}"))
    if prediction.people > 1 and not all_faces:
        say(
            f"mma-mrnnet: {name}: {prediction.people} people were seen; this is who is in most "
            "frames, --all-faces shows the others"
        )
    print_neutral(prediction, name)
    if as_json:
        return
    ranked = [name for name, _ in prediction.ranked()] if prediction.calibrated else None
    for target in ranked or prediction.intensities:
        print(printable(f"  {target:<14} {format_intensity(prediction, target, BAR_LENGTH)}"))


def format_intensity(prediction: "VideoPrediction", target: str, bar_length: int) -> str:
    """Return an intensity, the one without neutral subtraction in brackets, and a bar."""
    value = prediction.intensities[target]
    plain = f" ({prediction.uncorrected[target]:.2f})" if prediction.uncorrected else ""
    return f"{value:5.2f}{plain}  {'#' * round(bar_length * min(max(value, 0.0), 1.0))}"


def print_neutral(prediction: "VideoPrediction", name: str) -> None:
    """Say that the person's neutral was subtracted, if it was."""
    if prediction.neutral_s is not None:
        start, end = prediction.neutral_s
        say(
            f"mma-mrnnet: {name}: the person's own neutral from {start:.3g} to {end:.3g} s was "
            "taken out; without that: in brackets"
        )


def print_notes(facts: "CheckpointFacts", *, with_frames: bool) -> None:
    """Print the notes that must accompany a model's intensities and, with `with_frames`, affect."""
    from mma_mrnnet.model.labels import action_unit_name

    notes = facts.caveats()
    prior_only = ", ".join(map(action_unit_name, facts.prior_only_action_units))
    if with_frames and prior_only:
        notes.append(
            f"{prior_only} of the frames' table had no labels: they follow from the expressions"
        )
    if facts.untrained_outputs:
        untrained = ", ".join(facts.untrained_outputs)
        notes.append(f"nothing taught the extractor {untrained}: arbitrary numbers")
    for note in notes:
        say(f"note: {note}")


def discard_stdout() -> None:
    """Discard further output: the reader has closed the pipe (`| head`), which is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
