"""mma-mrnnet crop and draw: clips as folders of face crops, from videos or made up."""

import argparse
import sys
from pathlib import Path

from mma_mrnnet.cli.arguments import count, rate

CROP_EXAMPLES = """examples:
  mma-mrnnet crop clips crops                     # then: train.py --stage mrnn --data clips:crops
  mma-mrnnet crop videos cropped_aligned --fps native --workers 8
  mma-mrnnet crop clips crops --format png --size 112"""

DRAW_EXAMPLES = """example:
  mma-mrnnet draw drawn --workers 2               # then: train.py --stage mrnn --data hume:drawn"""


def add_crop(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("folder", type=Path, help="searched for videos, below too")
    parser.add_argument(
        "out",
        type=Path,
        help="where FOLDER/a/clip.mp4 becomes a/clip/00001.jpg, by number of the frame",
    )
    parser.add_argument(
        "--fps",
        type=rate,
        default=2.0,
        help="frames a second, or `native` for all of them (default: 2, as stage 2)",
    )
    parser.add_argument(
        "--size", type=count, default=112, help="side of the crops in pixels (default: 112)"
    )
    parser.add_argument(
        "--workers", type=count, help="processes, one thread each (default: one a usable core)"
    )
    parser.add_argument(
        "--format", choices=("jpg", "png"), default="jpg", help="png loses nothing (default: jpg)"
    )


def run_crop(args: argparse.Namespace) -> int:
    """Stores the crops; 1 where a clip failed."""
    from mma_mrnnet.crops.folder import crop_corpus
    from mma_mrnnet.crops.store import CropSettings

    settings = CropSettings(None if args.fps == "native" else args.fps, args.size, args.format)
    try:
        report = crop_corpus(args.folder, args.out, settings, args.workers)
    except KeyboardInterrupt:
        print(
            "mma-mrnnet: interrupted; finished clips stay, and the same command goes on there",
            file=sys.stderr,
        )
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


def add_draw(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("folder", type=Path, help="where to write; must not exist, or be empty")
    parser.add_argument(
        "--clips",
        type=count,
        nargs=3,
        default=(600, 200, 300),
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="how many of each split (default: 600 200 300)",
    )
    parser.add_argument(
        "--size", type=count, default=64, help="side of the crops in pixels (default: 64)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    parser.add_argument("--workers", type=count, default=1, help="processes that draw (default: 1)")


def run_draw(args: argparse.Namespace) -> int:
    """Draws the clips."""
    from mma_mrnnet.synthetic.drawn_clips import write_drawn_reactions

    write_drawn_reactions(
        args.folder, tuple(args.clips), seed=args.seed, size=args.size, workers=args.workers
    )
    print(f"wrote {args.folder}: {sum(args.clips)} clips", file=sys.stderr)
    return 0
