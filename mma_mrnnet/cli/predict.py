"""`mma-mrnnet predict` and `compare`: intensities of clips, and of two clips side by side."""

import contextlib
import glob
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from mma_mrnnet.cli.journal import Journal, Record
from mma_mrnnet.cli.options import (
    REPORT_HELP,
    Device,
    EngineOption,
    FrameRate,
    Model,
    Neutral,
    Report,
    Revision,
    Threads,
    open_model,
    option,
    parse_count,
    parse_rate,
    parse_seconds,
    parse_table_rate,
    printable,
    say,
)
from mma_mrnnet.cli.outputs import (
    Outputs,
    Targets,
    check_clips_stay,
    check_report,
    describe_unwritten,
    discard_stdout,
    format_intensity,
    print_neutral,
    print_notes,
    print_prediction,
)
from mma_mrnnet.workers import Lost, run_tasks

if TYPE_CHECKING:
    from mma_mrnnet.hub.facts import CheckpointFacts
    from mma_mrnnet.prediction import VideoPrediction
    from mma_mrnnet.prediction.checkpoint import Engine

PREDICT_EXAMPLES = """examples:
  mma-mrnnet predict clip.mp4
  mma-mrnnet predict clips/ --out results.csv --frames frames.parquet
  mma-mrnnet predict clips/ --out results.parquet --workers 8
  mma-mrnnet predict 'clips/*.mov' --fps native --frames frames.csv
  mma-mrnnet predict interview.mp4 --all-faces --out people.csv
  mma-mrnnet predict clip.mp4 --neutral 0:2                # seconds in which the face rests
  mma-mrnnet predict clip.mp4 --report clip.html --annotate clip_read.mp4
  mma-mrnnet predict long.mp4 --windows windows.csv --window 12 --hop 1
  mma-mrnnet predict openface/ --model runs/tables/model   # trained on tables of features"""

COMPARE_EXAMPLES = """examples:
  mma-mrnnet compare before.mp4 after.mp4
  mma-mrnnet compare before.mp4 after.mp4 --report both.html
  mma-mrnnet compare before.mp4 after.mp4 --neutral auto --report both.png"""

WINDOW_S, HOP_S = 12.0, 1.0
TIME_LIMIT_S = 3600.0  # an hour of video takes minutes
COMPARED_BAR_LENGTH = 10  # characters for intensity 1


@dataclass(frozen=True)
class Reading:
    """How to read and predict each clip.

    `fps` is the frame rate of the table of frames (None: the checkpoint's); with `every_frame` it
    must be None. `table_fps` is the rate of tables without times; None uses every row.
    """

    engine: "Engine"
    fps: float | None = None
    every_frame: bool = False
    all_faces: bool = False
    neutral: tuple[float, float] | str | None = None
    table_fps: float | None = None


def predict_clips(
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS...",
            help="Video files or addresses, folders (searched for videos and for stored crops), or "
            "quoted patterns; tables of features for a model that was trained on such.",
        ),
    ],
    model: Model = None,
    revision: Revision = None,
    fps: Annotated[
        FrameRate | None,
        option(
            "RATE",
            "Frames a second of the per-frame table, or `native` for all of them. The intensities "
            "always rest on the checkpoint's own rate.",
            parse_rate,
        ),
    ] = None,
    table_fps: Annotated[
        float | None,
        option(
            "RATE",
            "Rows a second of tables of features that have no times; as in training.",
            parse_table_rate,
        ),
    ] = None,
    all_faces: Annotated[
        bool,
        typer.Option(
            "--all-faces",
            help="A result for everybody in a clip, numbered by `track`. Default: only for the "
            "person in most frames, track 0.",
        ),
    ] = False,
    neutral: Neutral = None,
    out: Annotated[
        Path | None, option("FILE", "One row a clip and person, as .csv, .json or .parquet.")
    ] = None,
    frames: Annotated[
        Path | None, option("FILE", "One row a frame and person, as .csv, .json or .parquet.")
    ] = None,
    windows: Annotated[
        Path | None,
        option("FILE", "One row a sliding window and person, as .csv, .json or .parquet."),
    ] = None,
    window: Annotated[
        float | None,
        option(
            "SECONDS",
            f"Length of these windows. Default: {WINDOW_S:g}, or all that the model reads.",
            parse_seconds,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        option("SECONDS", f"Time from window to window. Default: {HOP_S:g}.", parse_seconds),
    ] = None,
    report: Annotated[
        Path | None,
        option("FILE", f"{REPORT_HELP} A page takes several clips and people, a picture one."),
    ] = None,
    annotate: Annotated[
        Path | None,
        option(
            "OUT.mp4",
            "The clip with boxes, affect and the estimates so far drawn on its frames, sound kept. "
            "Takes one clip; every frame of it goes through the extractor.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one line of JSON a clip and person, with its frames, to stdout."
        ),
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Average each face with its mirrored copy: steadier, twice the extractor's time.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        option(
            "N",
            "Processes that share the clips, each with its own model. Writes tables only. Results "
            "are kept beside the first table until all are done: the same command goes on after "
            "an end of any kind. Default: this process, one clip after the other.",
            parse_count,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        option(
            "SECONDS",
            f"With --workers: give up a clip that takes longer. Default: {TIME_LIMIT_S:g}.",
            parse_seconds,
        ),
    ] = None,
    engine: EngineOption = None,
    device: Device = None,
    threads: Threads = 1,
) -> int:
    """Predict the intensities of each clip, and the affect of its frames."""
    targets = Targets(out, frames, windows, report, annotate)
    targets.check()
    _check_windows(targets, fps, window, hop)
    _check_workers(targets, workers, time_limit, as_json=as_json)
    opening = Opening(model, revision, engine, device, threads, mirror)
    opened = opening.open()
    facts = opened.facts
    given = {"--fps": fps, "--all-faces": all_faces or None, "--neutral": neutral}
    _check_options_of(facts, given)
    if table_fps is not None and facts.feature_names is None:
        raise ValueError("--table-fps is for models that read tables; this one reads videos")
    window_s = _choose_window(window, facts.num_frames / facts.sampling_fps)
    found = find_clips(clips, facts)
    is_of_tables = facts.feature_names is not None
    targets.check_against(found, all_faces=all_faces, is_of_tables=is_of_tables)
    every_frame = annotate is not None or (fps is not None and fps.fps is None)
    reading = Reading(
        opened,
        fps=None if fps is None or every_frame else fps.fps,
        every_frame=every_frame,
        all_faces=all_faces,
        neutral=None if neutral is None else neutral.seconds,
        table_fps=table_fps,
    )
    shown_fps = facts.sampling_fps if fps is None else fps.fps
    hop_s = HOP_S if hop is None else hop
    if workers is not None:
        job = Job(opening, reading, targets, shown_fps, window_s, hop_s)
        return _predict_in_workers(found, job, workers, time_limit or TIME_LIMIT_S)
    outputs = Outputs(targets, opened, shown_fps, window_s, hop_s)
    return _predict_all(found, reading, outputs, targets, as_json=as_json)


def _predict_all(
    clips: list[str], reading: Reading, outputs: Outputs, targets: Targets, *, as_json: bool
) -> int:
    """Predict, print and write; return the exit code. Errors of a clip do not stop the others."""
    errors: list[str | None] = []  # one per person
    done, is_interrupted = 0, False
    try:
        for clip in _with_progress(clips):
            people = outputs.add(predict_one(clip, reading))
            errors += [prediction.error for prediction in people]
            _show(people, outputs, all_faces=reading.all_faces, as_json=as_json)
            done += 1
    except KeyboardInterrupt:
        is_interrupted = True
        say(f"mma-mrnnet: interrupted after {done} of {len(clips)} clips")
    outputs.write()
    code = _conclude(errors, outputs, reading.engine.facts)
    return 130 if is_interrupted else code


def _conclude(errors: list[str | None], outputs: Outputs, facts: "CheckpointFacts") -> int:
    """Print the notes and return the exit code; raise OSError for outputs that failed."""
    if None in errors:
        print_notes(facts, with_frames="frames" in outputs.given)
    if outputs.failed:
        raise OSError("; ".join(outputs.failed))
    return int(any(error is not None for error in errors))


@dataclass(frozen=True)
class Opening:
    """Options by which a model is opened, here and in every worker."""

    model: str | None
    revision: str | None
    engine: Any
    device: str | None
    threads: int
    mirror: bool

    def open(self) -> "Engine":
        """Open the model; see `open_model`."""
        opened = open_model(self.model, self.revision, self.engine, self.device, self.threads)
        if not self.mirror:
            return opened
        from mma_mrnnet.prediction.checkpoint import MirroredEngine

        return MirroredEngine(opened)


@dataclass(frozen=True)
class Job:
    """What a worker needs to predict clips."""

    opening: Opening
    reading: Reading
    targets: Targets
    shown_fps: float | None
    window_s: float
    hop_s: float

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine out: every worker opens its own."""
        return {**vars(self), "reading": Reading(**{**vars(self.reading), "engine": None})}

    def outputs(self) -> Outputs:
        """Return new, empty outputs."""
        engine = self.reading.engine
        return Outputs(self.targets, engine, self.shown_fps, self.window_s, self.hop_s)

    def prepare(self) -> Callable[[str], Record]:
        """Open the model, and return what predicts one clip."""
        reading = replace(self.reading, engine=self.opening.open())
        job = replace(self, reading=reading)
        return lambda clip: job.record(predict_one(clip, reading))

    def record(self, people: list["VideoPrediction"]) -> Record:
        """Return what is kept of one clip's people."""
        outputs = self.outputs()
        outputs.add(people)
        said = {"errors": [each.error for each in people], "warning": people[0].warning}
        return {**outputs.to_json(), **said}

    def settings(self) -> Record:
        """Return all that changes the results, by its name in messages."""
        from importlib.metadata import version

        tables = list(self.targets.given())
        windows = [self.window_s, self.hop_s] if self.targets.windows else None
        neutral = self.reading.neutral
        return {
            "the version": version("mma-mrnnet"),
            "the model": _digest_model(self.reading.engine),
            "the list of tables": tables,
            "--fps": "native" if self.reading.every_frame else self.reading.fps,
            "--table-fps": self.reading.table_fps,
            "--all-faces": self.reading.all_faces,
            "--neutral": list(neutral) if isinstance(neutral, tuple) else neutral,
            "--window and --hop": windows,
            "--engine": self.reading.engine.name,
            "--device": self.opening.device,
            "--mirror": self.opening.mirror,
        }


def _digest_model(engine: "Engine") -> str:
    """Return a digest of what the model says, whatever runs it, about made-up inputs."""
    import numpy as np

    from mma_mrnnet.files import content_digest

    facts, random = engine.facts, np.random.default_rng(0)
    affect = random.random((1, facts.num_frames, facts.input_size), np.float32)
    said = [engine.predict_intensities(affect, np.ones(affect.shape[:2], bool))]
    if facts.feature_names is None:
        said.append(engine.extract_affect([random.integers(0, 256, (64, 64, 3), np.uint8)]))
    numbers = [value.round(4).tolist() for value in said]
    return content_digest(vars(facts), numbers)[:12]


def _predict_in_workers(clips: list[str], job: Job, workers: int, limit_s: float) -> int:
    """Predict in several processes, write the tables in the order of `clips`; return the exit code.

    Results of finished clips are in a journal until the tables are written.
    """
    from tqdm import tqdm

    first = next(iter(job.targets.given().values()))
    with Journal.open(first.with_name(f"{first.name}.journal"), job.settings()) as journal:
        todo = [clip for clip in clips if not journal.holds(clip)]
        results = run_tasks(
            todo, job.prepare, workers, limit_s=limit_s, preload="mma_mrnnet.prediction"
        )
        done = len(clips) - len(todo)
        bar = tqdm(total=len(clips), initial=done, unit="clip", disable=None)
        try:
            with bar, contextlib.closing(results):
                for clip, result in results:
                    record = (
                        job.record([_failed(clip, result.reason, job.reading)])
                        if isinstance(result, Lost)
                        else result
                    )
                    journal.add(clip, record)
                    _say_problems(clip, record)
                    bar.update()
        except KeyboardInterrupt:
            say("mma-mrnnet: interrupted; finished clips are kept, and the same command goes on")
            return 130
        outputs, errors = job.outputs(), []
        for record in journal.read(clips):
            outputs.add_json(record)
            errors += record["errors"]
        failures = len(outputs.failed)
        outputs.write()
        if len(outputs.failed) == failures:
            journal.remove()
        return _conclude(errors, outputs, job.reading.engine.facts)


def _say_problems(clip: str, record: Record) -> None:
    for problem in (record["warning"], *record["errors"]):
        if problem is not None:
            say(f"mma-mrnnet: {_strip_secrets(clip)}: {problem}")


def predict_one(clip: str, reading: Reading) -> list["VideoPrediction"]:
    """Return one prediction per person; a failure becomes a prediction with `error`."""
    from mma_mrnnet.prediction import predict_people, predict_table, predict_video

    engine = reading.engine
    try:
        if engine.facts.feature_names is not None:
            return [predict_table(clip, engine, table_fps=reading.table_fps)]
        settings: dict[str, Any] = {
            "fps": reading.fps,
            "every_frame": reading.every_frame,
            "neutral": reading.neutral,
        }
        with _bar_of_seconds() as settings["progress"]:
            if reading.all_faces:
                return predict_people(clip, engine, **settings)
            return [predict_video(clip, engine, **settings)]
    except Exception as error:  # the other clips go on; the row says why
        name = _strip_secrets(clip)
        reason = " ".join(str(error).split()).removeprefix(f"{name}: ") or type(error).__name__
        if reason.startswith(f"{name}:"):  # an error of a table, followed by the line number
            reason = f"line {reason.removeprefix(f'{name}:')}"
        return [_failed(clip, reason, reading)]


def _failed(clip: str, reason: str, reading: Reading) -> "VideoPrediction":
    """Return the prediction of a clip that could not be read."""
    import pandas as pd

    from mma_mrnnet.prediction import VideoPrediction, frame_columns

    facts = reading.engine.facts
    empty = pd.DataFrame(columns=frame_columns(facts)).astype({"face": bool})
    nothing = dict.fromkeys(facts.label_names, float("nan"))
    return VideoPrediction(
        _strip_secrets(clip), nothing, empty, duration_s=float("nan"), error=reason
    )


def _strip_secrets(clip: str) -> str:
    """Return an address without user, password and query; a path unchanged."""
    from mma_mrnnet.video.reading import VideoError
    from mma_mrnnet.video.sources import strip_secrets

    try:
        return strip_secrets(clip) if "://" in clip else clip
    except VideoError:  # not an address
        return clip.partition("?")[0]


def _check_options_of(facts: "CheckpointFacts", given: dict[str, Any]) -> None:
    """Raise ValueError for video options with a model that reads tables."""
    if facts.feature_names is None:
        return
    for option_name in (name for name, value in given.items() if value is not None):
        raise ValueError(
            f"{option_name} is for videos; this model reads tables of features at "
            f"{facts.sampling_fps:g}"
        )


def _check_windows(
    targets: Targets, fps: FrameRate | None, window: float | None, hop: float | None
) -> None:
    """Raise ValueError for an invalid combination of window options."""
    if targets.windows is None and (window is not None or hop is not None):
        raise ValueError("--window and --hop need --windows FILE, which says where that table goes")
    if targets.windows is not None and fps is not None and fps.fps is not None:
        raise ValueError(
            "--windows rests on the frames at the checkpoint's own rate: leave --fps out, "
            "or give native"
        )


def _check_workers(
    targets: Targets, workers: int | None, time_limit: float | None, *, as_json: bool
) -> None:
    """Raise ValueError for options that do not go with `--workers`."""
    if workers is None and time_limit is not None:
        raise ValueError("--time-limit needs --workers")
    if workers is None:
        return
    if not any((targets.out, targets.frames, targets.windows)):
        raise ValueError("--workers writes tables: give --out, --frames or --windows")
    if targets.report or targets.annotate or as_json:
        raise ValueError("--workers writes tables: leave --report, --annotate and --json out")


def _choose_window(window: float | None, most_s: float) -> float:
    """Return the window length in seconds; raise ValueError if the model reads less."""
    if window is not None and window > most_s:
        raise ValueError(f"--window {window:g}: this model reads at most {most_s:g} s at once")
    return min(WINDOW_S, most_s) if window is None else window


def _show(
    people: list["VideoPrediction"], outputs: Outputs, *, all_faces: bool, as_json: bool
) -> None:
    """Print one clip's results at once.

    A closed pipe or a full disk behind stdout ends the work only if no file is to be written.
    """
    try:
        for prediction in people:
            print_prediction(prediction, all_faces=all_faces, as_json=as_json)
        sys.stdout.flush()
    except OSError as error:
        if not outputs.given:
            raise
        discard_stdout()
        if not isinstance(error, BrokenPipeError):
            outputs.failed.append(describe_unwritten(Path("standard output"), error))


def find_clips(words: list[str], facts: "CheckpointFacts") -> list[str]:
    """Return the clips of paths, folders and patterns, without duplicates.

    The order is that of `words`, sorted within folders and patterns. A folder that
    `mma-mrnnet crop` wrote for a clip is a clip. A missing path is kept: it fails on its own.

    Raises:
        ValueError: a folder or pattern without clips that the model reads.
    """
    from mma_mrnnet.prediction import clip_suffixes

    suffixes = clip_suffixes(facts)
    found: dict[Path | str, str] = {}  # by the clip's identity
    for word in words:
        if "://" in word and not word.startswith("file://"):
            found.setdefault(word, word)
            continue
        path = _read_path(word)
        matches = [path]
        if _holds(path.is_dir):
            matches = _search_folder(path, suffixes, with_crops=facts.feature_names is None)
        elif not _holds(path.exists) and glob.has_magic(str(path)):
            names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - any pattern
            files = [Path(name) for name in names if Path(name).is_file()]
            # Ignore other files that a pattern matches, unless it matches no clip at all.
            matches = [file for file in files if _is_clip(file, suffixes)] or files
        if not matches:
            raise ValueError(f"{word}: no clip here; looked for {' '.join(sorted(suffixes))}")
        for match in matches:
            found.setdefault(match.absolute(), str(match))
    return list(found.values())


def _read_path(word: str) -> Path:
    """Return the path of a word, which may be a file:// URL or start with `~`."""
    from urllib.request import url2pathname

    path = Path(url2pathname(urlsplit(word).path) if word.startswith("file://") else word)
    if _holds(path.exists):  # a file may have the name `~`
        return path
    with contextlib.suppress(RuntimeError):  # no such user
        return path.expanduser()
    return path


def _holds(test: Callable[[], bool]) -> bool:
    """Return the test's result; False for an invalid file name, such as one of 300 bytes."""
    with contextlib.suppress(OSError, ValueError):
        return test()
    return False


def _search_folder(folder: Path, suffixes: frozenset[str], *, with_crops: bool) -> list[Path]:
    from mma_mrnnet.crops.folder import find_files
    from mma_mrnnet.crops.store import INDEX

    files = [path for path in find_files(folder, suffixes) if _is_clip(path, suffixes)]
    crops = [path.parent for path in folder.rglob(INDEX)] if with_crops else []
    return sorted([*files, *crops])


def _is_clip(path: Path, suffixes: frozenset[str]) -> bool:
    # `--data clips:FOLDER` has a table of labels beside the clips, which may be tables too.
    is_note = path.stem.lower() in ("metadata", "readme")
    return path.suffix.lower() in suffixes and not is_note


def _with_progress(clips: list[str]) -> Iterable[str]:
    from tqdm import tqdm

    # disable=None: no bar without a terminal.
    return tqdm(clips, unit="clip", disable=None if len(clips) > 1 else True)


@contextlib.contextmanager
def _bar_of_seconds() -> Iterator[Callable[[float, float | None], None]]:
    """Yield a `progress` of `predict_video` that shows a bar if a clip takes long."""
    from tqdm import tqdm

    # disable=None: no bar without a terminal.
    with tqdm(unit="s", disable=None, leave=False, delay=2, unit_scale=True) as bar:

        def show(done_s: float, length_s: float | None) -> None:
            bar.total = length_s
            bar.update(done_s - bar.n)

        yield show


# Compare -----------------------------------------------------------------------------------------


def compare_clips(
    clips: Annotated[
        tuple[str, str],
        typer.Argument(
            metavar="CLIP CLIP",
            help="Two videos, or tables for a model that was trained on tables of features.",
        ),
    ],
    model: Model = None,
    revision: Revision = None,
    neutral: Neutral = None,
    report: Report = None,
    engine: EngineOption = None,
    device: Device = None,
    threads: Threads = 1,
) -> int:
    """Predict the intensities of two clips and show them side by side."""
    check_report(report)
    check_clips_stay(clips, [] if report is None else [report])
    opened = open_model(model, revision, engine, device, threads)
    if opened.facts.feature_names is not None and neutral is not None:
        raise ValueError("--neutral is for videos; this model reads tables of features")
    seconds = None if neutral is None else neutral.seconds
    reading = Reading(opened, neutral=seconds)
    one, other = (predict_one(clip, reading)[0] for clip in clips)
    _print_comparison(one, other)
    print_notes(opened.facts, with_frames=False)
    if opened.facts.relative_labels:
        say("note: so a longer bar on one side does not mean that this person felt more")
    if report is not None:
        _write_comparison(one, other, report)
    return int(one.error is not None or other.error is not None)


def _print_comparison(one: "VideoPrediction", other: "VideoPrediction") -> None:
    """Print both clips' warnings, and their results as columns."""
    from mma_mrnnet.prediction import shown
    from mma_mrnnet.report.page import others_said

    for each in (one, other):
        name = shown(each.file)
        for said in (each.warning, each.error, others_said(each)):
            if said:
                say(f"mma-mrnnet: {name}: {said}")
        print_neutral(each, name)
    for line in side_by_side(one, other):
        print(printable(line))


def side_by_side(one: "VideoPrediction", other: "VideoPrediction") -> list[str]:
    """Return a table's lines: one column per clip, one row per target of the first result."""
    from mma_mrnnet.report.page import pair_names

    names = pair_names(one, other)
    first = one if one.error is None else other
    ranked = first.calibrated and first.error is None
    targets = [name for name, _ in first.ranked()] if ranked else list(first.intensities)
    rows = [("", *names), ("", _count_faces(one), _count_faces(other))]
    rows += [(name, _format_cell(one, name), _format_cell(other, name)) for name in targets]
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"  {name:<{left}}  {here:<{middle}}  {there}".rstrip() for name, here, there in rows]


def _count_faces(prediction: "VideoPrediction") -> str:
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    return f"{length}face in {prediction.frames_with_face} of {prediction.frames_sampled}"


def _format_cell(prediction: "VideoPrediction", target: str) -> str:
    if math.isnan(prediction.intensities[target]):
        return "-"
    return format_intensity(prediction, target, COMPARED_BAR_LENGTH)


def _write_comparison(one: "VideoPrediction", other: "VideoPrediction", path: Path) -> None:
    try:
        if path.suffix.lower() == ".png":
            from mma_mrnnet.report.picture import draw_comparison

            draw_comparison(one, other, path)
        else:
            from mma_mrnnet.report.page import comparison_page, write_page

            write_page(comparison_page(one, other), path)
    except (OSError, ValueError) as error:
        raise OSError(describe_unwritten(path, error)) from error
    say(f"wrote {path}")
