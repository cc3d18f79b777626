"""`mma-mrnnet crop`, `draw`, `ablate`, `diagnose`, `evaluate`: training data and evaluation."""

import logging
import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from mma_mrnnet.cli.options import (
    FrameRate,
    option,
    parse_count,
    parse_rate,
    say,
    silence_transformers,
)

CROP_EXAMPLES = """examples:
  mma-mrnnet crop clips crops                     # then: train.py --stage mrnn --data clips:crops
  mma-mrnnet crop videos cropped_aligned --fps native --workers 8
  mma-mrnnet crop clips crops --format png --size 112"""

DRAW_EXAMPLES = """example:
  mma-mrnnet draw drawn --workers 2               # then: train.py --stage mrnn --data hume:drawn"""

ABLATE_EXAMPLES = """examples:
  mma-mrnnet ablate --list
  mma-mrnnet ablate --out ablations --seeds 5 --jobs 2 --transfer simulated:other \\
      -- --data simulated --mma runs/mma/model --clips 8000 2000 2000 --epochs 8
  mma-mrnnet ablate --out ablations \\
      --frames '--data affectnet:AFFECTNET,emotionet:EMOTIONET --epochs 20' \\
      -- --data hume:c2_muse_reaction --epochs 30     # trains the extractors too"""

TRAIN_EXAMPLES = """examples:
  mma-mrnnet train --stage mma --data affectnet:AFFECTNET --output runs/mma
  mma-mrnnet train --stage mrnn --data clips:crops --mma runs/mma/model --output runs/mrnn
  mma-mrnnet train -- --help                      # all settings; docs/training.md explains them
  accelerate launch -m mma_mrnnet.train ...       # the same words, on several processes"""

DIAGNOSE_EXAMPLES = """examples:
  mma-mrnnet diagnose runs/mrnn
  mma-mrnnet diagnose runs/mma runs/mrnn --json findings.json"""

EVALUATE_EXAMPLES = """examples:
  mma-mrnnet evaluate --data drawn --out evaluation        # the checkpoint in the package
  mma-mrnnet evaluate runs/mma/model --data FACES --out evaluation \\
      --against shipped --pictures studio
  mma-mrnnet evaluate runs/mma/model --data reference_clips:CODED --out evaluation"""


# The configs' defaults; importing those takes seconds, so a test compares.
CROPPED_RATE = FrameRate(2.0)
CROPPED_SIZE = 112


def crop_videos(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Searched for videos, its folders too.")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Where FOLDER/a/clip.mp4 becomes a/clip/00001.jpg, by the frame's number.",
        ),
    ],
    fps: Annotated[
        FrameRate,
        option("RATE", "Frames a second, or `native` for all of them.", parse_rate),
    ] = CROPPED_RATE,
    size: Annotated[int, option("PIXELS", "Side of the crops.", parse_count)] = CROPPED_SIZE,
    workers: Annotated[
        int | None,
        option("N", "Processes, one thread each. Default: one a usable core.", parse_count),
    ] = None,
    format: Annotated[  # noqa: A002 - the name of the option
        Literal["jpg", "png"], option("KIND", "jpg, or png, which loses nothing.")
    ] = "jpg",
) -> int:
    """Store the aligned face crops of all videos in a folder, for training."""
    from mma_mrnnet.crops.folder import crop_corpus
    from mma_mrnnet.crops.store import CropSettings

    try:
        report = crop_corpus(folder, out, CropSettings(fps.fps, size, format), workers)
    except KeyboardInterrupt:
        say("mma-mrnnet: interrupted; finished clips stay, and the same command goes on there")
        return 130
    for place, what in [*report.warnings, *report.failed, *report.left_out]:
        say(f"mma-mrnnet: {place}: {what}")
    for table in report.tables:
        say(f"wrote {table}")
    say(
        f"{out}: {report.done} clips done, {report.skipped} skipped, {len(report.failed)} failed, "
        f"{len(report.without_face)} without a face; "
        f"a face in {report.faces} of {report.frames} frames; {report.seconds:.1f} s"
    )
    return int(bool(report.failed or report.left_out))


def draw_clips(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Where to write; must not exist, or be empty."),
    ],
    clips: Annotated[
        tuple[int, int, int],
        option("TRAIN VALIDATION TEST", "Number of clips of each split.", parse_count),
    ] = (600, 200, 300),
    size: Annotated[int, option("PIXELS", "Side of the crops.", parse_count)] = 64,
    seed: Annotated[int, option("N", "Seed of everything drawn.")] = 0,
    workers: Annotated[int, option("N", "Processes that draw.", parse_count)] = 1,
) -> int:
    """Draw simulated reactions as clips of cartoon faces, laid out as Hume-Reaction; no people."""
    from mma_mrnnet.synthetic.drawn_clips import write_drawn_reactions

    write_drawn_reactions(folder, clips, seed=seed, size=size, workers=workers)
    say(f"wrote {folder}: {sum(clips)} clips")
    return 0


def run_ablations(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- WORDS OF train.py FOR --stage mrnn", hidden=True),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Print what there is to compare, and nothing else.")
    ] = False,
    out: Annotated[
        Path | None,
        option("FOLDER", "Folder of the study; what is done there is not done again."),
    ] = None,
    questions: Annotated[
        list[str] | None, option("NAME ...", "Questions whose variants to train. Default: all.")
    ] = None,
    variants: Annotated[
        list[str] | None, option("NAME ...", "Further variants, or these alone.")
    ] = None,
    seeds: Annotated[
        int, option("N", "Runs of each variant, with seeds from 0 on.", parse_count)
    ] = 3,
    jobs: Annotated[int, option("N", "Runs at once.", parse_count)] = 1,
    frames: Annotated[
        str | None,
        option(
            "'WORDS'",
            "Train the extractors too: words of train.py for --stage mma, in one string.",
        ),
    ] = None,
    transfer: Annotated[
        list[str] | None,
        option("DATA ...", "Try every model on these data sets too, named as for --data."),
    ] = None,
) -> int:
    """Train the paper's comparisons, each with several seeds, and report them."""
    from mma_mrnnet.analysis.ablation import FAILED, ablate
    from mma_mrnnet.analysis.study import describe_variants, parse_study

    if list_only:
        print("\n".join(describe_variants()))
        return 0
    if out is None:
        raise ValueError("ablate needs --out, the folder of the study")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of several processes would mix
    try:
        words_of_frames = None if frames is None else shlex.split(frames)
    except ValueError as error:
        raise ValueError(f"--frames: {error}; got {frames}") from error
    left_out = ablate(
        parse_study(out, words or [], words_of_frames, transfer or []),
        questions=questions or [],
        names=variants or [],
        seeds=seeds,
        jobs=jobs,
        tell=say,
    )
    print((out / "ablations.md").read_text(encoding="utf-8"))
    say(f"wrote {out}/ablations.json, ablations.md, ablations.png")
    return int(any(reason.startswith(FAILED) for reason in left_out.values()))


def train_stage(
    words: Annotated[
        list[str],
        typer.Argument(metavar="SETTINGS...", help="Settings of train.py, such as --epochs 20."),
    ],
) -> int:
    """Train one stage in one process, as train.py does."""
    from mma_mrnnet.train import main

    logging.getLogger("mma_mrnnet").setLevel(logging.NOTSET)
    return main(words)


def diagnose_runs(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUNS...", help="A run's folder, a model's, or a results file."),
    ],
    json: Annotated[
        Path | None, option("FILE", "The same for machines, as a list of the files' findings.")
    ] = None,
) -> int:
    """Say what is wrong with a training run, from its results, and what to try."""
    from mma_mrnnet.analysis.diagnosis import diagnose_files
    from mma_mrnnet.files import write_json

    found, code = [], 0
    for run in runs:
        try:
            found += diagnose_files(run)
        except ValueError as error:
            say(f"mma-mrnnet: {error}")
            code = 1
    for diagnosis in found:
        print("\n".join(diagnosis.describe()))
    if json is not None:
        write_json(json, [diagnosis.to_json() for diagnosis in found])
        say(f"wrote {json}")
    return code


def evaluate_extractor(
    data: Annotated[
        str,
        option(
            "DATA",
            "Labelled crops: a folder of parquet files, NAME:FOLDER[,...], or `drawn`; or "
            "reference_clips:FOLDER, clips with tables of reference values for each frame.",
        ),
    ],
    out: Annotated[Path, option("FOLDER", "Folder for evaluation.json, .md and .png.")],
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help="A stage-1 or stage-2 checkpoint, or `shipped`: the one in the package.",
        ),
    ] = "shipped",
    against: Annotated[
        str | None, option("MODEL", "Another checkpoint, or `shipped`, on the same images.")
    ] = None,
    split: Annotated[
        Literal["train", "validation"], option("SPLIT", "train or validation.")
    ] = "validation",
    pictures: Annotated[
        list[str] | None,
        option(
            "SOURCE ...",
            "Show the worst failures on crops of these sources in failures.png; no crop otherwise.",
        ),
    ] = None,
) -> int:
    """Evaluate an extractor on labelled face crops, source by source, or on reference clips."""
    from mma_mrnnet.analysis.evaluation import evaluate

    silence_transformers()
    command = ["mma-mrnnet", "evaluate", model, "--data", data, "--out", str(out)]
    command += ["--split", split]
    command += ["--against", against] if against is not None else []
    command += ["--pictures", *pictures] if pictures else []
    results = evaluate(
        model,
        data,
        out,
        against=against,
        split=split,
        pictures=pictures or [],
        command=shlex.join(command),
    )
    written = "evaluation.json, evaluation.md"
    written += "" if results.time_courses else ", evaluation.png"
    say(f"wrote {out}/{written}{', failures.png' if pictures else ''}")
    return 0
