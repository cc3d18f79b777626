"""mma-mrnnet predict: intensities of each clip, and affect of its frames."""

import argparse
import glob
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from mma_mrnnet.cli.arguments import checkpoint, count, device, rate, seconds, set_threads, stretch
from mma_mrnnet.cli.drawn import (
    Drawings,
    add_drawn,
    check_clips_stay,
    check_drawn,
    check_report,
    not_written,
)
from mma_mrnnet.cli.show import discard_stdout, print_notes, print_prediction

EXAMPLES = """examples:
  mma-mrnnet predict clip.mp4
  mma-mrnnet predict clips/ --out results.csv --frames frames.parquet
  mma-mrnnet predict 'clips/*.mov' --fps native --frames frames.csv
  mma-mrnnet predict interview.mp4 --all-faces --out people.csv
  mma-mrnnet predict clip.mp4 --neutral 0:2                  # a stretch in which the person's face rests
  mma-mrnnet predict clip.mp4 --report clip.html --annotate clip_read.mp4
  mma-mrnnet predict long.mp4 --windows windows.csv --window 12 --hop 1
  mma-mrnnet predict openface/ --model runs/tables/model     # one that was trained on tables of features"""

WINDOW_S, HOP_S = 12.0, 1.0
TABLES = ("out", "frames", "windows")
OUTPUTS = (*TABLES, "report", "annotate")


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "clips",
        nargs="+",
        help="video files, folders (searched for videos), or quoted patterns; for a --model that was trained on tables "
        "of features, such tables (.csv)",
    )
    parser.add_argument(
        "--model", help="a stage-2 checkpoint: folder or repository (default: the one that ships)"
    )
    parser.add_argument(
        "--fps",
        type=rate,
        help="frames a second of the per-frame table, or `native` for all of them; "
        "the intensities always rest on the checkpoint's own rate",
    )
    parser.add_argument(
        "--all-faces",
        action="store_true",
        help="a result for everybody in a clip, numbered by `track` (default: for who is in most frames, track 0)",
    )
    parser.add_argument(
        "--neutral",
        type=stretch,
        metavar="START:END",
        help="seconds in which the person's face rests, or `auto` for the calmest stretch: what it shows there is "
        "taken out of the frames' affect; not shown to improve anything (default: off)",
    )
    parser.add_argument(
        "--out", type=Path, help="one row a clip and person, as .csv, .json or .parquet"
    )
    parser.add_argument(
        "--frames", type=Path, help="one row a frame and person, as .csv, .json or .parquet"
    )
    parser.add_argument(
        "--windows",
        type=Path,
        help="one row a sliding window and person, as .csv, .json or .parquet",
    )
    parser.add_argument(
        "--window",
        type=seconds,
        help=f"length of these windows in seconds (default: {WINDOW_S:g}, or all that fits)",
    )
    parser.add_argument(
        "--hop", type=seconds, help=f"seconds from window to window (default: {HOP_S:g})"
    )
    add_drawn(parser)
    parser.add_argument(
        "--device", default="cpu", help="a torch device, such as cuda (default: cpu)"
    )
    parser.add_argument(
        "--threads",
        type=count,
        default=1,
        help="compute threads (default 1: on cores that other processes share, more can be far slower)",
    )


def run_predict(args: argparse.Namespace) -> int:
    """Predicts every clip; 1 where one failed."""
    from mma_mrnnet.prediction import clip_suffixes

    _check_tables(args)
    set_threads(args.threads)
    model, processor = checkpoint(args.model)
    _check_options(args, model)
    clips = _find_clips(args.clips, clip_suffixes(model.config))
    check_clips_stay(clips, [getattr(args, option) for option in (*TABLES, "report")])
    check_drawn(args, clips, of_tables=model.config.feature_names is not None)
    model = model.to(device(args.device))
    tables = _Tables(args, model, processor)
    table_rate = model.config.sampling_fps if args.fps is None else args.fps
    drawings = Drawings(args, None if table_rate == "native" else table_rate)
    done, interrupted = 0, False
    try:
        for clip in _with_progress(clips):
            for prediction in drawings.add(predict_one(clip, model, processor, args)):
                tables.add(prediction)
                _show(prediction, args)
            done += 1
    except KeyboardInterrupt:
        interrupted = True
        print(f"mma-mrnnet: interrupted after {done} of {len(clips)} clips", file=sys.stderr)
    failed = [*tables.write(), *drawings.write()]
    if any(summary["error"] is None for summary in tables.summaries):
        print_notes(model.config, frames_too=args.frames is not None)
    if failed:
        raise OSError("; ".join(failed))
    if interrupted:
        return 130
    return int(any(summary["error"] is not None for summary in tables.summaries))


def _check_tables(args: argparse.Namespace) -> None:
    """Raises ValueError where a table could not be written, before any work."""
    from mma_mrnnet.prediction import check_table_path

    wanted = {option: path for option in OUTPUTS if (path := getattr(args, option)) is not None}
    for option in (option for option in TABLES if option in wanted):
        check_table_path(wanted[option])
    check_report(args.report)
    for option, other in combinations(wanted, 2):
        if wanted[option].resolve() == wanted[other].resolve():
            raise ValueError(f"{wanted[option]}: --{option} and --{other} need a file each")


def _check_options(args: argparse.Namespace, model: object) -> None:
    """Raises ValueError for options that do not go with each other, or with the model."""
    if model.config.feature_names is not None:
        given = {
            "--fps": args.fps is not None,
            "--all-faces": args.all_faces,
            "--neutral": args.neutral is not None,
        }
        for option in (option for option, is_given in given.items() if is_given):
            rate_of_tables = f"{model.config.sampling_fps:g}"
            raise ValueError(
                f"{option} is for videos; this model reads tables of features at {rate_of_tables}"
            )
    if args.windows is None and (args.window is not None or args.hop is not None):
        raise ValueError(
            "--window and --hop are of --windows FILE, which says where that table goes"
        )
    if args.windows is not None and args.fps not in (None, "native"):
        raise ValueError(
            "--windows rests on the frames at the checkpoint's own rate: leave --fps out, or give native"
        )


class _Tables:
    """The tables that were asked for, as they fill.

    Args:
        args: the command's.
        model: that predicts ...
        processor: ... with its processor.
    """

    def __init__(self, args: argparse.Namespace, model: object, processor: object) -> None:
        self._args, self._model, self._processor = args, model, processor
        most_s = processor.num_frames / model.config.sampling_fps
        self._window_s = min(WINDOW_S, most_s) if args.window is None else args.window
        if args.windows is not None and self._window_s > most_s:
            raise ValueError(
                f"--window {self._window_s:g}: this model reads at most {most_s:g} s at once"
            )
        self.summaries: list[dict] = []
        self._frames: list = []
        self._windows: list = []

    def add(self, prediction: object) -> None:
        """Takes what the tables need of one prediction."""
        self.summaries.append(prediction.summary())
        if self._args.frames is not None:
            self._frames.append(prediction.frames)
        if self._args.windows is not None and prediction.error is None:
            self._add_windows(prediction)

    def _add_windows(self, prediction: object) -> None:
        from mma_mrnnet.prediction import shown
        from mma_mrnnet.prediction.streaming import sliding_windows

        frames = prediction.frames
        if frames["time_s"].isna().any():
            print(f"mma-mrnnet: {prediction.file}: no time stamps, so no windows", file=sys.stderr)
            return
        affect = frames[list(self._model.config.input_names)].to_numpy("float32")
        hop_s = HOP_S if self._args.hop is None else self._args.hop
        table = sliding_windows(
            frames["time_s"].to_numpy(), affect, self._model, self._processor, self._window_s, hop_s
        )
        table.insert(0, "file", shown(prediction.file))
        table.insert(1, "track", prediction.track)
        self._windows.append(table)

    def write(self) -> list[str]:
        """Writes each, whatever became of the others; what could not be written, in words."""
        import pandas as pd

        clips = [pd.DataFrame(self.summaries)] if self.summaries else []
        return _write(
            [
                (self._args.out, clips),
                (self._args.frames, self._frames),
                (self._args.windows, self._windows),
            ]
        )


def _write(tables: list[tuple[Path | None, list]]) -> list[str]:
    """Writes the parts of each table as one, where it has a path and parts; what could not be, in words."""
    import pandas as pd

    from mma_mrnnet.prediction import write_table

    failed = []
    for path, parts in tables:
        if path is None or not parts:
            continue
        filled = [table for table in parts if len(table)] or parts[:1]
        try:
            write_table(pd.concat(filled, ignore_index=True), path)
            print(f"wrote {path}", file=sys.stderr)
        except (
            OSError,
            ValueError,
        ) as error:  # the disk may have filled up; another table may still find room
            failed.append(not_written(path, error))
    return failed


def predict_one(clip: str, model: object, processor: object, args: argparse.Namespace) -> list:
    """The clip's predictions, one a person; a failure becomes the error of one, with an empty table."""
    import pandas as pd

    from mma_mrnnet.prediction import (
        VideoPrediction,
        frame_columns,
        predict_people,
        predict_table,
        predict_video,
    )

    native = args.fps == "native" or args.annotate is not None
    settings = {"fps": None if native else args.fps, "every_frame": native, "neutral": args.neutral}
    try:
        if model.config.feature_names is not None:
            return [predict_table(clip, model, processor)]
        if args.all_faces:
            return predict_people(clip, model, processor, **settings)
        return [predict_video(clip, model, processor, **settings)]
    except (
        Exception
    ) as error:  # whatever one clip does, the others go on; its row says what happened
        reason = " ".join(str(error).split()).removeprefix(f"{clip}: ") or type(error).__name__
        if reason.startswith(f"{clip}:"):  # of a table, with the line's number behind
            reason = f"line {reason.removeprefix(f'{clip}:')}"
        empty = pd.DataFrame(columns=frame_columns(model.config)).astype({"face": bool})
        nothing = dict.fromkeys(model.config.label_names, float("nan"))
        return [VideoPrediction(clip, nothing, empty, duration_s=float("nan"), error=reason)]


def _show(prediction: object, args: argparse.Namespace) -> None:
    """Prints one result at once; a reader that left stops the work only where nothing else is wanted of it."""
    try:
        print_prediction(prediction, all_faces=args.all_faces)
        sys.stdout.flush()
    except BrokenPipeError:
        if all(getattr(args, option) is None for option in OUTPUTS):
            raise
        discard_stdout()


def _find_clips(words: list[str], suffixes: frozenset[str]) -> list[str]:
    """Files in the order given; folders and patterns sorted, each file once.

    Raises:
        ValueError: a folder or pattern without a file of these endings. A plain name that is not there stays: it fails
            alone.
    """
    from mma_mrnnet.crops.folder import find_files
    from mma_mrnnet.crops.store import METADATA

    def is_clip(path: Path) -> bool:
        # The layout of `--data clips:FOLDER` keeps its labels in a table beside the clips, which may be tables too.
        return path.suffix.lower() in suffixes and path.name != METADATA

    found: list[str] = []
    for word in words:
        if Path(word).is_dir():
            matches = [str(path) for path in find_files(Path(word), suffixes) if is_clip(path)]
        elif not Path(word).exists() and glob.has_magic(word):
            files = sorted(path for path in glob.glob(word, recursive=True) if Path(path).is_file())  # noqa: PTH207
            # A pattern may catch tables and notes beside the clips; one without a single video was meant as it stands.
            matches = [path for path in files if is_clip(Path(path))] or files
        else:
            matches = [word]
        if not matches:
            raise ValueError(f"{word}: no clip here; looked for {' '.join(sorted(suffixes))}")
        found += matches
    once: dict[Path, str] = {}
    for name in found:
        once.setdefault(Path(name).absolute(), str(Path(name)))
    return list(once.values())


def _with_progress(clips: list[str]) -> Sequence[str]:
    from tqdm import tqdm

    return tqdm(
        clips, unit="clip", disable=None if len(clips) > 1 else True
    )  # None: silent where nobody watches
