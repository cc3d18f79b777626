"""mma-mrnnet compare: the results of two clips side by side."""

import argparse
import math
import sys
from pathlib import Path

from mma_mrnnet.cli.arguments import checkpoint, count, device, set_threads, stretch
from mma_mrnnet.cli.drawn import REPORT_HELP, check_clips_stay, check_report, not_written
from mma_mrnnet.cli.predict import predict_one
from mma_mrnnet.cli.show import print_neutral, print_notes

EXAMPLES = """examples:
  mma-mrnnet compare before.mp4 after.mp4
  mma-mrnnet compare before.mp4 after.mp4 --report both.html
  mma-mrnnet compare before.mp4 after.mp4 --neutral auto --report both.png"""

_BAR = 10  # characters


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "clips",
        nargs=2,
        metavar="CLIP",
        help="two videos (or tables, for a --model that reads them)",
    )
    parser.add_argument(
        "--model", help="a stage-2 checkpoint: folder or repository (default: the one that ships)"
    )
    parser.add_argument(
        "--neutral",
        type=stretch,
        metavar="START:END",
        help="as in predict; in seconds of both clips, or auto",
    )
    parser.add_argument("--report", type=Path, help=REPORT_HELP)
    parser.add_argument(
        "--device", default="cpu", help="a torch device, such as cuda (default: cpu)"
    )
    parser.add_argument("--threads", type=count, default=1, help="compute threads (default 1)")
    parser.set_defaults(fps=None, all_faces=False, annotate=None)


def run_compare(args: argparse.Namespace) -> int:
    """Predicts both clips and shows them side by side; 1 where one has no result."""
    check_report(args.report)
    check_clips_stay(args.clips, [args.report])
    set_threads(args.threads)
    model, processor = checkpoint(args.model)
    if model.config.feature_names is not None and args.neutral is not None:
        raise ValueError("--neutral is for videos; this model reads tables of features")
    model = model.to(device(args.device))
    from mma_mrnnet.prediction import shown
    from mma_mrnnet.report.page import others_said

    one, other = (predict_one(clip, model, processor, args)[0] for clip in args.clips)
    for each in (one, other):
        name = shown(each.file)
        for said in (each.warning, each.error, others_said(each)):
            if said:
                print(f"mma-mrnnet: {name}: {said}", file=sys.stderr)
        print_neutral(each, name)
    for line in side_by_side(one, other):
        print(line)
    print_notes(model.config, frames_too=False)
    if model.config.relative_labels:
        print(
            "note: so a longer bar on one side does not mean that this person felt more",
            file=sys.stderr,
        )
    if args.report is not None:
        try:
            _write_report(one, other, args.report)
        except (OSError, ValueError) as error:
            raise OSError(not_written(args.report, error)) from error
    return int(one.error is not None or other.error is not None)


def side_by_side(one: object, other: object) -> list[str]:
    """A table's lines: a column a clip, a row a target, in the order of the first clip's result."""
    from mma_mrnnet.report.page import pair_names

    names = pair_names(one, other)
    first = one if one.error is None else other
    ranked = first.calibrated and first.error is None
    targets = [name for name, _ in first.ranked()] if ranked else list(first.intensities)
    left = max(map(len, targets))
    cells = [(_cell(one, name), _cell(other, name)) for name in targets]
    width = max(
        len(text) for row in (names, (_counts(one), _counts(other)), *cells) for text in row
    )
    lines = [f"  {'':<{left}}  {names[0]:<{width}}  {names[1]}"]
    lines.append(f"  {'':<{left}}  {_counts(one):<{width}}  {_counts(other)}")
    lines += [
        f"  {name:<{left}}  {here:<{width}}  {there}"
        for name, (here, there) in zip(targets, cells, strict=True)
    ]
    return [line.rstrip() for line in lines]


def _counts(prediction: object) -> str:
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    return f"{length}face in {prediction.frames_with_face} of {prediction.frames_sampled}"


def _cell(prediction: object, name: str) -> str:
    value = prediction.intensities[name]
    if math.isnan(value):
        return "-"
    without = f" ({prediction.uncorrected[name]:.2f})" if prediction.uncorrected else ""
    return f"{value:5.2f}{without}  {'#' * round(_BAR * min(max(value, 0.0), 1.0))}"


def _write_report(one: object, other: object, path: Path) -> None:
    if path.suffix.lower() == ".png":
        from mma_mrnnet.report.picture import draw_comparison

        draw_comparison(one, other, path)
    else:
        from mma_mrnnet.report.page import comparison_page, write_page

        write_page(comparison_page(one, other), path)
    print(f"wrote {path}", file=sys.stderr)
