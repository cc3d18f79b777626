"""The command behind `mma-mrnnet ablate`: run what is missing of a study, then write its numbers, tables and plot."""

from collections.abc import Callable, Sequence

from filelock import FileLock, Timeout

from mma_mrnnet.analysis.ablation.grid import run_grid
from mma_mrnnet.analysis.ablation.page import plot, tables
from mma_mrnnet.analysis.ablation.study import Study
from mma_mrnnet.analysis.ablation.summary import summarise
from mma_mrnnet.analysis.ablation.variants import QUESTIONS, Variant, all_variants, chosen_variants
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.checkpoints import write_json, write_text


def ablate(
    study: Study,
    *,
    questions: Sequence[str] = (),
    names: Sequence[str] = (),
    seeds: int = 3,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Trains every chosen variant with every seed that is not done, and reports all that is there.

    Args:
        study: what is compared; `ablations.json`, `ablations.md` and `ablations.png` are written into its folder.
        questions: whose variants to run; all of them where neither these nor `names` are given.
        names: further variants.
        seeds: seeds from 0 on.
        jobs: runs at once.
        tell: gets a line for every run that ends.

    Returns:
        {variant: why it could not be trained}.

    Raises:
        ValueError: no such question or variant, a folder with another study, or no run of the full model.
    """
    everything = [name for name in QUESTIONS if name != "transfer" or study.transfer]
    wanted = questions if questions or names else everything
    chosen, impossible = _possible(study, wanted, names)
    study.check_transfer()
    study.claim()
    try:
        with FileLock(study.folder / ".lock", timeout=0):
            left_out = {**impossible, **run_grid(study, chosen, range(seeds), jobs, tell)}
    except Timeout as error:
        raise ValueError(f"{study.folder}: another command is at work there") from error
    summary = {
        "what": "variants of the full model, each trained with every seed; mean Pearson over the targets",
        "jobs": jobs,
        **summarise(study, study.variants, left_out),
    }
    folder = study.folder
    write_json(folder / "ablations.json", summary)
    write_text(folder / "ablations.md", f"# Ablations\n\n{tables(summary)}")
    try:
        plot(summary, folder / "ablations.png")
    except ImportError:
        tell("no plot: pip install matplotlib")
    return left_out


def _possible(
    study: Study, questions: Sequence[str], names: Sequence[str]
) -> tuple[list[Variant], dict[str, str]]:
    """The variants to train, and those of the questions that cannot be, with the reason."""
    chosen = chosen_variants(study.variants, questions, names)
    reasons = {
        variant.name: reason
        for variant in chosen
        if (reason := study.impossible(variant)) is not None
    }
    for name in names:
        if name in reasons:
            raise ValueError(f"--variants {name}: {reasons[name]}")
    if "transfer" in questions and not study.transfer:
        raise ValueError("--questions transfer needs --transfer: the data to try the models on")
    possible = [variant for variant in study.variants if variant.name not in reasons]
    # Once more: what only an impossible variant is compared with need not be trained.
    return chosen_variants(possible, questions, names), reasons


def variant_lines() -> list[str]:
    """A line for every question and variant."""
    variants = all_variants(
        parse_arguments(["--stage", "mrnn", "--data", "clips:FOLDER", "--output", "x"]), ["DATA"]
    )
    lines = [f"{'full':<14} {variants[0].what}"]
    for question, asked in QUESTIONS.items():
        lines += ["", f"{question}: {asked}"]
        lines += [
            f"  {variant.name:<12} {variant.what}"
            for variant in variants
            if variant.question == question
        ]
    return lines
