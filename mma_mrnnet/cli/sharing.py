"""mma-mrnnet export, push and demo: a folder for the Hub, its way there, and the whole job on a public-domain photo."""

import argparse
import logging
import sys
from pathlib import Path

from mma_mrnnet.cli.arguments import count, set_threads
from mma_mrnnet.cli.show import print_notes, print_prediction

EXPORT_EXAMPLES = """example:
  mma-mrnnet export runs/mrnn/model my-model      # to look at; mma-mrnnet push does both steps
  mma-mrnnet export runs/mrnn/model my-onnx --format onnx     # runs with numpy and onnxruntime alone"""

PUSH_EXAMPLES = """examples (after `hf auth login`, or with HF_TOKEN set):
  mma-mrnnet push runs/mrnn/model me/my-model --private
  mma-mrnnet push runs/mrnn/model me/my-model --revision longer-clips --message "T = 60" """

DEMO_EXAMPLES = """example:
  mma-mrnnet demo --out mma_mrnnet_demo"""


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("checkpoint", help="a trained checkpoint, such as runs/mrnn/model")
    parser.add_argument("folder", help="where to write; must not exist, or be empty")
    parser.add_argument(
        "--format",
        choices=("hub", "onnx"),
        default="hub",
        help="a folder for the Hub (default), or ONNX models that run without PyTorch",
    )


def run_export(args: argparse.Namespace) -> int:
    """Writes the folder."""
    if args.format == "onnx":
        from mma_mrnnet.hub.onnx import export_onnx as export
    else:
        from mma_mrnnet.hub.checkpoints import export_checkpoint as export

    folder = export(args.checkpoint, args.folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"wrote {folder}: {len(list(folder.iterdir()))} files, {size / 1e6:.1f} MB")
    return 0


def add_push(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("checkpoint", help="a trained checkpoint, such as runs/mrnn/model")
    parser.add_argument(
        "repository", help="namespace/name on the Hub; made where it does not exist"
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make it private (refused where it exists and is public)",
    )
    parser.add_argument(
        "--revision",
        metavar="BRANCH",
        help="a branch; made where it does not exist (default: main)",
    )
    parser.add_argument("--message", help="title of the commit")


def run_push(args: argparse.Namespace) -> int:
    """Exports and uploads."""
    from huggingface_hub.utils import enable_progress_bars

    from mma_mrnnet.hub.push import publish_checkpoint

    logging.getLogger("mma_mrnnet.hub.push").setLevel(
        logging.WARNING
    )  # why it waits, and for how long
    if sys.stderr.isatty():
        enable_progress_bars()
    done = publish_checkpoint(
        args.checkpoint,
        args.repository,
        private=args.private,
        revision=args.revision,
        message=args.message,
    )
    if not done.changed:
        print(f"{done.url} holds exactly this already; nothing was committed")
        return 0
    access = "private" if done.private else "public"
    print(
        f"pushed to {done.url} ({access}): {done.files} files, {done.size / 1e6:.1f} MB, commit {done.commit[:8]}"
    )
    if done.removed:
        print(f"removed, as no longer part of it: {', '.join(done.removed)}")
    return 0


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("mma_mrnnet_demo"),
        help="folder for the clip and the results",
    )
    parser.add_argument("--threads", type=count, default=1, help="compute threads (default 1)")


def run_demo(args: argparse.Namespace) -> int:
    """Makes the clip and predicts it."""
    from mma_mrnnet.cli.demo import run_demo

    set_threads(args.threads)
    prediction, written = run_demo(args.out)
    print_prediction(prediction)
    from mma_mrnnet.prediction import default_checkpoint

    print_notes(default_checkpoint()[0].config, frames_too=True)
    for name, path in written.items():
        print(f"wrote {name}: {path}", file=sys.stderr)
    return 0
