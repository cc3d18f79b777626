"""mma-mrnnet ablate, diagnose and evaluate: what trainings amount to, what is wrong with one, how good a model is."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from mma_mrnnet.cli.arguments import count

ABLATE_EXAMPLES = """examples:
  mma-mrnnet ablate --list
  mma-mrnnet ablate --out ablations --seeds 5 --jobs 2 --transfer simulated:other \\
      -- --data simulated --mma runs/mma/model --clips 8000 2000 2000 --epochs 8 --learning_rate 1e-3
  mma-mrnnet ablate --out ablations --frames '--data affectnet:AFFECTNET,emotionet:EMOTIONET --epochs 20' \\
      -- --data hume:c2_muse_reaction --epochs 30     # trains the extractors too"""

DIAGNOSE_EXAMPLES = """examples:
  mma-mrnnet diagnose runs/mrnn
  mma-mrnnet diagnose runs/mma runs/mrnn --json findings.json"""

EVALUATE_EXAMPLES = """examples:
  mma-mrnnet evaluate --data drawn --out evaluation                  # the checkpoint inside the package
  mma-mrnnet evaluate runs/mma/model --data FACES --out evaluation --against shipped --pictures warp render"""


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.usage = "mma-mrnnet ablate --out FOLDER [options] -- WORDS OF train.py FOR --stage mrnn"
    parser.add_argument(
        "--list", action="store_true", help="what there is to compare, and nothing else"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the study; what is done there is not done again"
    )
    parser.add_argument(
        "--questions", nargs="+", default=[], metavar="NAME", help="whose variants to train (all)"
    )
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="NAME", help="further variants, or these alone"
    )
    parser.add_argument(
        "--seeds", type=count, default=3, help="runs of each variant, with seeds from 0 on (3)"
    )
    parser.add_argument("--jobs", type=count, default=1, help="runs at once (1)")
    parser.add_argument(
        "--frames",
        metavar="'WORDS'",
        help="train the extractors too: words of train.py for --stage mma, in one string",
    )
    parser.add_argument(
        "--transfer",
        nargs="+",
        default=[],
        metavar="DATA",
        help="try every model on these too; words as of --data",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run_ablate(args: argparse.Namespace) -> int:
    """Trains what is missing of a study and prints its tables; 1 where a training failed."""
    from mma_mrnnet.analysis.ablation.command import ablate, variant_lines
    from mma_mrnnet.analysis.ablation.grid import FAILED
    from mma_mrnnet.analysis.ablation.study import study_of

    if args.list:
        print("\n".join(variant_lines()))
        return 0
    if args.out is None:
        raise ValueError("ablate needs --out, the folder of the study")
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    os.environ.setdefault(
        "TQDM_DISABLE", "1"
    )  # bars of several processes would write over each other
    try:
        frames = None if args.frames is None else shlex.split(args.frames)
    except ValueError as error:
        raise ValueError(f"--frames: {error}; got {args.frames}") from error
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
    return int(any(reason.startswith(FAILED) for reason in left_out.values()))


def add_diagnose(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("runs", nargs="+", help="a run's folder, a model's, or a results file")
    parser.add_argument(
        "--json", type=Path, help="the same for machines, as a list of the files' findings"
    )


def run_diagnose(args: argparse.Namespace) -> int:
    """Says what is wrong with each run; 1 where one cannot be read."""
    from mma_mrnnet.analysis.diagnosis.run import diagnoses, write_json

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


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        default="shipped",
        help="a stage-1 or stage-2 checkpoint; default: the one in the package",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="labelled crops: a folder of parquet files, NAME:FOLDER[,...], drawn",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for evaluation.json, .md and .png"
    )
    parser.add_argument(
        "--against", metavar="MODEL", help="another checkpoint, or shipped, on the same images"
    )
    parser.add_argument("--split", choices=("train", "validation"), default="validation")
    parser.add_argument(
        "--pictures",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="show the worst failures on crops of these sources in failures.png (no crop is shown otherwise)",
    )


def run_evaluate(args: argparse.Namespace) -> int:
    """Writes the report."""
    from mma_mrnnet.analysis.evaluation.run import evaluate

    written = [
        "evaluation.json",
        "evaluation.md",
        "evaluation.png",
        *(["failures.png"] if args.pictures else []),
    ]
    evaluate(
        args.model,
        args.data,
        args.out,
        against=args.against,
        split=args.split,
        pictures=args.pictures,
        command=_command_of(args),
    )
    print(f"wrote {args.out}/{', '.join(written)}", file=sys.stderr)
    return 0


def _command_of(args: argparse.Namespace) -> str:
    words = [
        "mma-mrnnet",
        "evaluate",
        args.model,
        "--data",
        args.data,
        "--out",
        str(args.out),
        "--split",
        args.split,
    ]
    words += ["--against", args.against] if args.against is not None else []
    words += ["--pictures", *args.pictures] if args.pictures else []
    return shlex.join(words)
