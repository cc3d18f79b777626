"""`mma-mrnnet ablate` with two further questions: planted differences, and a 3-D CNN on pixels.

python benchmarks/ablations/run.py --out FOLDER [options of mma-mrnnet ablate] -- WORDS OF train.py
"""

import os
import shlex
import sys
from dataclasses import replace

from pixels import pixel_stage
from planted import QUESTION, add_noise_row, make_leaking_stage

from mma_mrnnet.analysis.ablation import ablate, write_report
from mma_mrnnet.analysis.study import Study, parse_study
from mma_mrnnet.analysis.study_summary import read_runs, summarise_study
from mma_mrnnet.analysis.variants import FULL, QUESTIONS, Variant
from mma_mrnnet.cli import parse_words

FURTHER_QUESTIONS = {
    **{name: asked for name, asked in QUESTIONS.items() if name != "transfer"},
    "pixels": "affect and GRU, or a small 3-D CNN on pixels?",
    "transfer": QUESTIONS["transfer"],
    QUESTION: "can these tables see a difference that is known to be there?",
}


def list_further_variants(study: Study) -> tuple[Variant, ...]:
    """Return the variants that exist only here."""
    masked = study.base.temporal_pooling == "mask"
    padded = {"temporal_pooling": "padded"}
    return (
        Variant(
            "cnn3d",
            "pixels",
            "small 3-D CNN on pixels, no extractor",
            make_stage=pixel_stage,
            reads_affect=False,
        ),
        Variant(
            "leak-padded",
            QUESTION,
            "no mask, and the labels stand in the padding",
            padded,
            against="padded",
            make_stage=make_leaking_stage,
        ),
        Variant(
            "leak-mask",
            QUESTION,
            "mask layer, and the labels stand in the padding",
            {} if masked else {"temporal_pooling": "mask"},
            make_stage=make_leaking_stage,
        ),
    )


def extend_study(study: Study) -> Study:
    """Add the questions and variants of this script to a study."""
    return replace(study, questions=FURTHER_QUESTIONS, extra=list_further_variants(study))


def report_with_noise(study: Study, left_out: dict[str, str], jobs: int) -> None:
    """Write the study's report again, with the full model's outputs under noise."""
    summary = summarise_study(study, study.variants, left_out, jobs)
    if summary.rows_of(QUESTION):
        summary = add_noise_row(summary, read_runs(study, FULL))
    write_report(summary, study.folder)


def main() -> None:
    """Read the words of `mma-mrnnet ablate`, train what is missing, and report.

    Raises:
        ValueError: wrong words.
    """
    _, given = parse_words(["ablate", *sys.argv[1:]])
    os.environ.setdefault("TQDM_DISABLE", "1")
    frames = None if given["frames"] is None else shlex.split(given["frames"])
    words, transfer = given["words"] or [], given["transfer"] or []
    study = extend_study(parse_study(given["out"], words, frames, transfer))
    left_out = ablate(
        study,
        questions=given["questions"] or [],
        names=given["variants"] or [],
        seeds=given["seeds"],
        jobs=given["jobs"],
        tell=lambda line: print(line, file=sys.stderr),
    )
    report_with_noise(study, left_out, given["jobs"])
    print((study.folder / "ablations.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
