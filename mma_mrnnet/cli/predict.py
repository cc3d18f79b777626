"""mma-mrnnet predict: intensities of each clip, and affect of its frames."""

import argparse
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from mma_mrnnet.cli.arguments import count, device, rate, set_threads
from mma_mrnnet.cli.show import discard_stdout, print_notes, print_prediction

EXAMPLES = """examples:
  mma-mrnnet predict clip.mp4
  mma-mrnnet predict clips/ --out results.csv --frames frames.parquet
  mma-mrnnet predict 'clips/*.mov' --fps native --frames frames.csv
  mma-mrnnet predict openface/ --model runs/tables/model     # one that was trained on tables of features"""


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "clips",
        nargs="+",
        help="video files, folders (searched for videos), or quoted patterns; for a --model that was trained on tables "
        "of features, such tables (.csv)",
    )
    parser.add_argument("--model", help="a stage-2 checkpoint: folder or repository (default: the one that ships)")
    parser.add_argument(
        "--fps",
        type=rate,
        help="frames a second of the per-frame table, or `native` for all of them; "
        "the intensities always rest on the checkpoint's own rate",
    )
    parser.add_argument("--out", type=Path, help="one row a clip, as .csv, .json or .parquet")
    parser.add_argument("--frames", type=Path, help="one row a frame, as .csv, .json or .parquet")
    parser.add_argument("--device", default="cpu", help="a torch device, such as cuda (default: cpu)")
    parser.add_argument(
        "--threads",
        type=count,
        default=1,
        help="compute threads (default 1: on cores that other processes share, more can be far slower)",
    )


def run_predict(args: argparse.Namespace) -> int:
    """Predicts every clip; 1 where one failed."""
    from mma_mrnnet.prediction import check_table_path, clip_suffixes, default_checkpoint

    for path in (args.out, args.frames):
        if path is not None:
            check_table_path(path)
    if args.out is not None and args.frames is not None and args.out.resolve() == args.frames.resolve():
        raise ValueError(f"{args.out}: --out and --frames need a file each")
    set_threads(args.threads)
    if args.model is None:
        model, processor = default_checkpoint()
    else:
        from mma_mrnnet.hub import load_checkpoint

        model, processor = load_checkpoint(args.model)
    if args.fps is not None and model.config.feature_names is not None:
        raise ValueError(f"--fps is for videos; this model reads tables of features at {model.config.sampling_fps:g}")
    clips = _find_clips(args.clips, clip_suffixes(model.config))
    model = model.to(device(args.device))
    summaries, tables, interrupted = [], [], False
    try:
        for clip in _with_progress(clips):
            prediction = _predict_one(clip, model, processor, args.fps)
            summaries.append(prediction.summary())
            tables.append(prediction.frames)
            _show(prediction, tables_follow=args.out is not None or args.frames is not None)
    except KeyboardInterrupt:
        interrupted = True
        print(f"mma-mrnnet: interrupted after {len(summaries)} of {len(clips)} clips", file=sys.stderr)
    _write(args, summaries, tables)
    if any(summary["error"] is None for summary in summaries):
        print_notes(model.config, frames_too=args.frames is not None)
    if interrupted:
        return 130
    return int(any(summary["error"] is not None for summary in summaries))


def _predict_one(clip: str, model: object, processor: object, fps: float | str | None) -> object:
    """The clip's prediction; a failure becomes its error, with an empty table."""
    import pandas as pd

    from mma_mrnnet.prediction import VideoPrediction, frame_columns, predict_table, predict_video

    rate = None if fps == "native" else fps
    try:
        if model.config.feature_names is not None:
            return predict_table(clip, model, processor)
        return predict_video(clip, model, processor, fps=rate, every_frame=fps == "native")
    except Exception as error:  # whatever one clip does, the others go on; its row says what happened
        reason = " ".join(str(error).split()).removeprefix(f"{clip}: ") or type(error).__name__
        if reason.startswith(f"{clip}:"):  # of a table, with the line's number behind
            reason = f"line {reason.removeprefix(f'{clip}:')}"
        empty = pd.DataFrame(columns=frame_columns(model.config)).astype({"face": bool})
        nothing = dict.fromkeys(model.config.label_names, float("nan"))
        shown = clip.encode("utf-8", "backslashreplace").decode()  # a name of other bytes could not stand in a table
        return VideoPrediction(shown, nothing, empty, duration_s=float("nan"), error=reason)


def _show(prediction: object, tables_follow: bool) -> None:
    """Prints one result at once; a reader that left stops the work only where nothing else is wanted of it."""
    try:
        print_prediction(prediction)
        sys.stdout.flush()
    except BrokenPipeError:
        if not tables_follow:
            raise
        discard_stdout()


def _write(args: argparse.Namespace, summaries: list[dict], tables: list) -> None:
    import pandas as pd

    from mma_mrnnet.prediction import write_table

    wanted: list[tuple[Path, pd.DataFrame]] = []
    if args.out is not None and summaries:
        wanted.append((args.out, pd.DataFrame(summaries)))
    if args.frames is not None and tables:
        filled = [table for table in tables if len(table)] or tables[:1]
        wanted.append((args.frames, pd.concat(filled, ignore_index=True)))
    failed = []
    for path, table in wanted:
        try:
            write_table(table, path)
            print(f"wrote {path}", file=sys.stderr)
        except (OSError, ValueError) as error:  # the disk may have filled up; the other table may still find room
            failed.append(f"{path}: not written: {error}")
    if failed:
        raise OSError("; ".join(failed))


def _find_clips(words: list[str], suffixes: frozenset[str]) -> list[str]:
    """Files in the order given; folders and patterns sorted, each file once.

    Raises:
        ValueError: a folder or pattern without a file of these endings. A plain name that is not there stays: it fails
            alone.
    """
    from mma_mrnnet.data.corpora.clip_folder import METADATA
    from mma_mrnnet.data.crop_corpus import files_below

    def is_clip(path: Path) -> bool:
        # The layout of `--data clips:FOLDER` keeps its labels in a table beside the clips, which may be tables too.
        return path.suffix.lower() in suffixes and path.name != METADATA

    found: list[str] = []
    for word in words:
        if Path(word).is_dir():
            matches = [str(path) for path in files_below(Path(word), suffixes) if is_clip(path)]
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

    return tqdm(clips, unit="clip", disable=None if len(clips) > 1 else True)  # None: silent where nobody watches
