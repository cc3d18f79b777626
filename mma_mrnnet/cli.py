"""The command line: mma-mrnnet predict | crop | draw | ablate | diagnose | export | demo. Only this module prints."""

import argparse
import glob
import logging
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = {
    "predict": """examples:
  mma-mrnnet predict clip.mp4
  mma-mrnnet predict clips/ --out results.csv --frames frames.parquet
  mma-mrnnet predict 'clips/*.mov' --fps native --frames frames.csv
  mma-mrnnet predict openface/ --model runs/tables/model     # one that was trained on tables of features""",
    "crop": """examples:
  mma-mrnnet crop clips crops                     # then: train.py --stage mrnn --data clips:crops
  mma-mrnnet crop videos cropped_aligned --fps native --workers 8
  mma-mrnnet crop clips crops --format png --size 112""",
    "ablate": """examples:
  mma-mrnnet ablate --list
  mma-mrnnet ablate --out ablations --seeds 5 --jobs 2 --transfer simulated:other \\
      -- --data simulated --mma runs/mma/model --clips 8000 2000 2000 --epochs 8 --learning_rate 1e-3
  mma-mrnnet ablate --out ablations --frames '--data affectnet:AFFECTNET,emotionet:EMOTIONET --epochs 20' \\
      -- --data hume:c2_muse_reaction --epochs 30     # trains the extractors too""",
    "diagnose": """examples:
  mma-mrnnet diagnose runs/mrnn
  mma-mrnnet diagnose runs/mma runs/mrnn --json findings.json""",
    "draw": """example:
  mma-mrnnet draw drawn --workers 2               # then: train.py --stage mrnn --data hume:drawn""",
    "export": """example:
  mma-mrnnet export runs/mrnn/model my-model      # then: hf upload me/my-model my-model""",
    "demo": """example:
  mma-mrnnet demo --out mma_mrnnet_demo""",
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; the process's exit code: 0, 1 where something failed, 2 for words that make no command."""
    parser = _parser()
    args = parser.parse_args(words)
    if args.command is None:
        parser.print_help()
        return 2
    _quieten_libraries()
    try:
        code = COMMANDS[args.command](args)
        sys.stdout.flush()  # here, where a reader that left is no error
        return code
    except BrokenPipeError:
        _discard_stdout()
        return 0
    except (ValueError, OSError) as error:
        print(f"mma-mrnnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mma-mrnnet: interrupted", file=sys.stderr)
        return 130


def _quieten_libraries() -> None:
    """The decoder and transformers speak through logging; a reader of results wants the one line that we print."""
    from transformers.utils import logging as transformers_logging

    logging.getLogger("mma_mrnnet").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # its retries; the last error is ours to tell
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _discard_stdout() -> None:
    """The reader left (| head), which is no error: what is still printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mma-mrnnet", description="A video of a face in, the intensities of seven emotional reactions out."
    )
    commands = parser.add_subparsers(dest="command", metavar="command")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    predict = add("predict", "intensities of each clip, and affect of its frames")
    predict.add_argument(
        "clips",
        nargs="+",
        help="video files, folders (searched for videos), or quoted patterns; for a --model that was trained on tables "
        "of features, such tables (.csv)",
    )
    predict.add_argument("--model", help="a stage-2 checkpoint: folder or repository (default: the one that ships)")
    predict.add_argument(
        "--fps",
        type=_rate,
        help="frames a second of the per-frame table, or `native` for all of them; "
        "the intensities always rest on the checkpoint's own rate",
    )
    predict.add_argument("--out", type=Path, help="one row a clip, as .csv, .json or .parquet")
    predict.add_argument("--frames", type=Path, help="one row a frame, as .csv, .json or .parquet")
    predict.add_argument("--device", default="cpu", help="a torch device, such as cuda (default: cpu)")
    predict.add_argument(
        "--threads",
        type=_count,
        default=1,
        help="compute threads (default 1: on cores that other processes share, more can be far slower)",
    )

    crop = add("crop", "stores the aligned face crops of every video of a folder, to train on")
    crop.add_argument("folder", type=Path, help="searched for videos, below too")
    crop.add_argument("out", type=Path, help="where FOLDER/a/clip.mp4 becomes a/clip/00001.jpg, by number of the frame")
    crop.add_argument(
        "--fps", type=_rate, default=2.0, help="frames a second, or `native` for all of them (default: 2, as stage 2)"
    )
    crop.add_argument("--size", type=_count, default=112, help="side of the crops in pixels (default: 112)")
    crop.add_argument("--workers", type=_count, help="processes, one thread each (default: one a usable core)")
    crop.add_argument("--format", choices=("jpg", "png"), default="jpg", help="png loses nothing (default: jpg)")

    _add_ablate(add("ablate", "trains the paper's comparisons, each with several seeds, and reports them"))
    diagnose = add("diagnose", "what is wrong with a training run, by its results, and what to try")
    diagnose.add_argument("runs", nargs="+", help="a run's folder, a model's, or a results file")
    diagnose.add_argument("--json", type=Path, help="the same for machines, as a list of the files' findings")
    draw = add("draw", "draws simulated reactions as clips of cartoon faces, laid out as Hume-Reaction: no people")
    draw.add_argument("folder", type=Path, help="where to write; must not exist, or be empty")
    draw.add_argument(
        "--clips",
        type=_count,
        nargs=3,
        default=(600, 200, 300),
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="how many of each split (default: 600 200 300)",
    )
    draw.add_argument("--size", type=_count, default=64, help="side of the crops in pixels (default: 64)")
    draw.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    draw.add_argument("--workers", type=_count, default=1, help="processes that draw (default: 1)")

    export = add("export", "a folder for the Hub: weights, config, processor, code and card")
    export.add_argument("checkpoint", help="a trained checkpoint, such as runs/mrnn/model")
    export.add_argument("folder", help="where to write; must not exist, or be empty")

    demo = add("demo", "makes a short clip from a public-domain photo and runs the whole job on it")
    demo.add_argument("--out", type=Path, default=Path("mma_mrnnet_demo"), help="folder for the clip and the results")
    demo.add_argument("--threads", type=_count, default=1, help="compute threads (default 1)")
    return parser


def _add_ablate(ablate: argparse.ArgumentParser) -> None:
    ablate.usage = "mma-mrnnet ablate --out FOLDER [options] -- WORDS OF train.py FOR --stage mrnn"
    ablate.add_argument("--list", action="store_true", help="what there is to compare, and nothing else")
    ablate.add_argument("--out", type=Path, help="folder of the study; what is done there is not done again")
    ablate.add_argument("--questions", nargs="+", default=[], metavar="NAME", help="whose variants to train (all)")
    ablate.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="further variants, or these alone")
    ablate.add_argument("--seeds", type=_count, default=3, help="runs of each variant, with seeds from 0 on (3)")
    ablate.add_argument("--jobs", type=_count, default=1, help="runs at once (1)")
    ablate.add_argument(
        "--frames", metavar="'WORDS'", help="train the extractors too: words of train.py for --stage mma, in one string"
    )
    ablate.add_argument(
        "--transfer", nargs="+", default=[], metavar="DATA", help="try every model on these too; words as of --data"
    )
    ablate.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _rate(text: str) -> float | str:
    if text == "native":
        return text
    try:
        rate = float(text)
    except ValueError:
        rate = float("nan")
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, or native; got {text!r}")
    return rate


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def _predict(args: argparse.Namespace) -> int:
    from mma_mrnnet.prediction import check_table_path, clip_suffixes, default_checkpoint

    for path in (args.out, args.frames):
        if path is not None:
            check_table_path(path)
    if args.out is not None and args.frames is not None and args.out.resolve() == args.frames.resolve():
        raise ValueError(f"{args.out}: --out and --frames need a file each")
    _set_threads(args.threads)
    if args.model is None:
        model, processor = default_checkpoint()
    else:
        from mma_mrnnet.hub import load_checkpoint

        model, processor = load_checkpoint(args.model)
    if args.fps is not None and model.config.feature_names is not None:
        raise ValueError(f"--fps is for videos; this model reads tables of features at {model.config.sampling_fps:g}")
    clips = _find_clips(args.clips, clip_suffixes(model.config))
    model = model.to(_device(args.device))
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
        _print_notes(model.config, frames_too=args.frames is not None)
    if interrupted:
        return 130
    return int(any(summary["error"] is not None for summary in summaries))


def _predict_one(clip: str, model: object, processor: object, fps: float | str | None) -> object:
    """The clip's prediction; a failure becomes its error, with an empty table."""
    from mma_mrnnet.prediction import VideoPrediction, frame_columns, pd, predict_table, predict_video

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
        _print_prediction(prediction)
        sys.stdout.flush()
    except BrokenPipeError:
        if not tables_follow:
            raise
        _discard_stdout()


def _print_prediction(prediction: object) -> None:
    if prediction.warning:
        print(f"mma-mrnnet: {prediction.file}: {prediction.warning}", file=sys.stderr)
    if prediction.error is not None:
        print(f"mma-mrnnet: {prediction.file}: {prediction.error}", file=sys.stderr)
        return
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    faces = f"a face in {prediction.frames_with_face} of {prediction.frames_sampled} frames"
    print(f"{prediction.file}: {length}{faces}")
    rows = prediction.ranked() if prediction.calibrated else prediction.intensities.items()
    for name, value in rows:
        print(f"  {name:<14} {value:5.2f}  {'#' * round(20 * min(max(value, 0.0), 1.0))}")


def _print_notes(config: object, *, frames_too: bool) -> None:
    """What must stand wherever a number is shown."""
    from mma_mrnnet.model.labels import action_unit_name

    notes = []
    if config.simulated_labels:
        notes.append("these intensities were learnt from a simulator, not from people's reports")
    if config.relative_labels:
        notes.append("they are relative within a clip: the training labels' strongest reaction was always 1")
    if not config.calibrated:
        notes.append(
            "this checkpoint is not calibrated: outputs of different targets do not compare and are not ranked"
        )
    prior_only = list(map(action_unit_name, config.prior_only_action_units))
    if frames_too and prior_only:
        notes.append(f"{', '.join(prior_only)} of the frames' table are prior only: no label ever reached them")
    if config.untrained_outputs:
        notes.append(f"nothing taught the extractor {', '.join(config.untrained_outputs)}: arbitrary numbers")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _write(args: argparse.Namespace, summaries: list[dict], tables: list) -> None:
    from mma_mrnnet.prediction import pd, write_table

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


def _set_threads(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _device(name: str) -> object:
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from error
    return device


def _crop(args: argparse.Namespace) -> int:
    from mma_mrnnet.data.crop_corpus import crop_corpus
    from mma_mrnnet.data.crop_store import CropSettings

    settings = CropSettings(None if args.fps == "native" else args.fps, args.size, args.format)
    try:
        report = crop_corpus(args.folder, args.out, settings, args.workers)
    except KeyboardInterrupt:
        print("mma-mrnnet: interrupted; finished clips stay, and the same command goes on there", file=sys.stderr)
        return 130
    for place, what in [*report.warnings, *report.failed, *report.left_out]:
        print(f"mma-mrnnet: {place}: {what}", file=sys.stderr)
    for table in report.tables:
        print(f"wrote {table}", file=sys.stderr)
    print(
        f"{args.out}: {report.done} clips done, {report.skipped} skipped, {len(report.failed)} failed, "
        f"{len(report.without_face)} without a face; "
        f"a face in {report.faces} of {report.frames} frames; {report.seconds:.1f} s",
        file=sys.stderr,
    )
    return int(bool(report.failed or report.left_out))


def _ablate(args: argparse.Namespace) -> int:
    from mma_mrnnet.ablation.command import ablate, variant_lines
    from mma_mrnnet.ablation.study import study_of

    if args.list:
        print("\n".join(variant_lines()))
        return 0
    if args.out is None:
        raise ValueError("ablate needs --out, the folder of the study")
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of several processes would write over each other
    frames = None if args.frames is None else shlex.split(args.frames)
    left_out = ablate(
        study_of(args.out, words, frames, args.transfer),
        questions=args.questions,
        names=args.variants,
        seeds=args.seeds,
        jobs=args.jobs,
        tell=lambda line: print(line, file=sys.stderr),
    )
    print((args.out / "ablations.md").read_text(encoding="utf-8"))
    print(f"wrote {args.out}/ablations.json, ablations.md, ablations.png", file=sys.stderr)
    return int(any(reason.startswith("seed") for reason in left_out.values()))


def _diagnose(args: argparse.Namespace) -> int:
    from mma_mrnnet.diagnosis.run import diagnoses, write_json

    found, code = [], 0
    for run in args.runs:
        try:
            found += diagnoses(run)
        except ValueError as error:
            print(f"mma-mrnnet: {error}", file=sys.stderr)
            code = 1
    for diagnosis in found:
        print("\n".join(diagnosis.lines()))
    if args.json is not None:
        write_json(args.json, found)
        print(f"wrote {args.json}", file=sys.stderr)
    return code


def _draw(args: argparse.Namespace) -> int:
    from mma_mrnnet.data.drawn_clips import write_drawn_reactions

    write_drawn_reactions(args.folder, tuple(args.clips), seed=args.seed, size=args.size, workers=args.workers)
    print(f"wrote {args.folder}: {sum(args.clips)} clips", file=sys.stderr)
    return 0


def _export(args: argparse.Namespace) -> int:
    from mma_mrnnet.hub import export_checkpoint

    folder = export_checkpoint(args.checkpoint, args.folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"wrote {folder}: {len(list(folder.iterdir()))} files, {size / 1e6:.1f} MB")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from mma_mrnnet.demo import run_demo

    _set_threads(args.threads)
    prediction, written = run_demo(args.out)
    _print_prediction(prediction)
    from mma_mrnnet.prediction import default_checkpoint

    _print_notes(default_checkpoint()[0].config, frames_too=True)
    for name, path in written.items():
        print(f"wrote {name}: {path}", file=sys.stderr)
    return 0


COMMANDS = {
    "predict": _predict,
    "crop": _crop,
    "draw": _draw,
    "ablate": _ablate,
    "diagnose": _diagnose,
    "export": _export,
    "demo": _demo,
}


if __name__ == "__main__":
    sys.exit(main())
