"""mma-mrnnet export and demo: a folder for the Hub, and the whole job on a public-domain photo."""

import argparse
import sys
from pathlib import Path

from mma_mrnnet.cli.arguments import count, set_threads
from mma_mrnnet.cli.show import print_notes, print_prediction

EXPORT_EXAMPLES = """example:
  mma-mrnnet export runs/mrnn/model my-model      # then: hf upload me/my-model my-model
  mma-mrnnet export runs/mrnn/model my-onnx --format onnx     # runs with numpy and onnxruntime alone"""

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
        from mma_mrnnet.onnx_export import export_onnx as export
    else:
        from mma_mrnnet.hub import export_checkpoint as export

    folder = export(args.checkpoint, args.folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"wrote {folder}: {len(list(folder.iterdir()))} files, {size / 1e6:.1f} MB")
    return 0


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("mma_mrnnet_demo"), help="folder for the clip and the results")
    parser.add_argument("--threads", type=count, default=1, help="compute threads (default 1)")


def run_demo(args: argparse.Namespace) -> int:
    """Makes the clip and predicts it."""
    from mma_mrnnet.demo import run_demo

    set_threads(args.threads)
    prediction, written = run_demo(args.out)
    print_prediction(prediction)
    from mma_mrnnet.prediction import default_checkpoint

    print_notes(default_checkpoint()[0].config, frames_too=True)
    for name, path in written.items():
        print(f"wrote {name}: {path}", file=sys.stderr)
    return 0
