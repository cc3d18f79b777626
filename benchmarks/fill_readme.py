"""Writes the README's measured blocks and the shipped card from the result files, and the example's output from a run.

    python benchmarks/fill_readme.py

A test fails where the README's numbers are not what this script would write.
"""

import contextlib
import io
import json
import re
from pathlib import Path

from mma_mrnnet.hub import load_pretrained, model_card

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = ROOT / "mma_mrnnet" / "pretrained"
RESULTS = ROOT / "benchmarks" / "results"


def load(path: Path) -> dict:
    """A result file."""
    return json.loads(path.read_text("utf-8"))


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where it was not measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def mean_f1(row: dict) -> float | None:
    """Mean F1 of the units with at least ten positive images; None without any."""
    scores = [unit["f1"] for unit in row["action_units"].values() if unit["present"] >= 10]
    return sum(scores) / len(scores) if scores else None


def expression_f1(row: dict) -> float | None:
    """Macro F1; None where fewer than two expressions are labelled."""
    labelled = sum(any(counts) for counts in row["expression_confusion_rows_are_labels"])
    return row["expression_macro_f1"] if labelled >= 2 else None


def stage1_table() -> str:
    """Validation scores of the extractor by source of images."""
    results = load(PRETRAINED / "results_mma.json")["validation"]
    lines = [
        "**Stage 1**, validation images of people in no training image. Labels are pseudo-labels (photos) or known by",
        "construction (bent photos, renders), valence-arousal follows from expression and intensity by a rule: this says how well",
        "it learnt them, not how well it reads people. A dash stands where fewer than two expressions, or no unit with ten positive",
        "images, are labelled:",
        "",
        "| images | count | mean AU correlation | mean AU F1 | expression macro F1 | valence, arousal CCC | smile or neutral, AUC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for source, row in results.items():
        concordance = row["valence_arousal_ccc"]
        lines.append(
            f"| {source} | {row['images']} | {number(row['mean_action_unit_correlation'])} "
            f"| {number(mean_f1(row))} | {number(expression_f1(row))} ({row['expression_images']}) "
            f"| {number(concordance['valence'])}, {number(concordance['arousal'])} ({row['valence_arousal_images']}) "
            f"| {number(row['smiling_against_neutral']['auc_of_happiness'], 3)} |"
        )
    return "\n".join(lines)


def stage2_table() -> str:
    """Test scores of the recurrent part, beside a regressor on the true trajectories."""
    results, ceiling = load(PRETRAINED / "results_mrnn.json"), load(PRETRAINED / "results_ceiling.json")
    test = results["test"]["reactions"]
    names = list(test["pearson"])
    rows = [
        ("this checkpoint, on the noisy affect it reads", [*test["pearson"].values(), test["mean_pearson"]]),
        ("ridge regression on the same noisy affect", list(ceiling["reported_affect"].values())),
        ("ridge regression on the simulator's true affect", list(ceiling["true_affect"].values())),
    ]
    lengths = results["test"]["mean_pearson_by_length"]
    ours, simple = test["mean_pearson"], ceiling["reported_affect"]["mean"]
    verdict = (
        "The network does not beat a ridge regression on summaries of what it reads."
        if ours <= simple
        else "The network beats a ridge regression on summaries of what it reads."
    )
    by_length = ", ".join(f"{name} frames {number(row['mean_pearson'])}" for name, row in lengths.items())
    return "\n".join(
        [
            f"**Stage 2**, Pearson on {test['clips']} *simulated* test clips with Hume-Reaction's published label marginals "
            "(and none of its data):",
            "",
            f"| | {' | '.join(names)} | mean |",
            "| --- |" + " --- |" * (len(names) + 1),
            *(f"| {label} | {' | '.join(number(value) for value in values)} |" for label, values in rows),
            "",
            f"Mean absolute error {number(test['mean_mae'], 3)}, CCC {number(test['mean_ccc'], 3)}. By length: {by_length}.",
            verdict,
        ]
    )


def clips_table() -> str:
    """What came out for the real clips."""
    clips = load(RESULTS / "real_clips.json")["clips"]
    lines = [
        "**Real clips**, looked at after training was fixed and never used to choose anything (they carry no labels):",
        "",
        "| clip | faces at 2 a second, at its own rate | strongest reactions | happiness by quarter | AU12 by quarter |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in clips.items():
        usual, native = row["frames_at_2_fps"], row["frames_at_own_rate"]
        faces = f"{usual['with_face']} of {usual['sampled']}, {native['with_face']} of {native['sampled']}"
        if row["error"]:
            lines.append(f"| `{name}` | {faces} | {row['error']} | | |")
            continue
        strongest = ", ".join(f"{label} {number(value)}" for label, value in list(row["intensities"].items())[:3])
        quarters = (" ".join(number(part[channel]) for part in row["quarters"]) for channel in ("happiness", "AU12"))
        lines.append(f"| `{name}` | {faces} | {strongest} | {' | '.join(quarters)} |")
    return "\n".join(lines)


def cost_table() -> str:
    """Time and memory of the command line."""
    cost = load(RESULTS / "predict_cost.json")
    steps = {name: value for name, value in cost["cpu_seconds_by_step_on_every_frame"].items() if name != "frames"}
    frames = cost["cpu_seconds_by_step_on_every_frame"]["frames"]
    spent = ", ".join(f"{name} {number(value)}" for name, value in steps.items())
    rows = (
        ("`predict`", "predict"),
        ("`predict --fps native`", "predict_fps_native"),
        ("`import mma_mrnnet` alone", "import_only"),
        ("importing transformers alone", "import_transformers_only"),
    )
    return "\n".join(
        [
            f"**Cost** of a 12 s 720p clip of 360 frames, one thread of {cost['machine']['processor']}:",
            "",
            "| | wall s | CPU s | peak memory |",
            "| --- | --- | --- | --- |",
            *(
                f"| {label} | {number(cost[key]['wall_s'], 1)} | {number(cost[key]['cpu_s'], 1)} | {cost[key]['peak_mb']:.0f} MB |"
                for label, key in rows
            ),
            "",
            f"CPU seconds by step, all {frames} frames in one process: {spent}.",
        ]
    )


def example(readme: str) -> str:
    """The example's code with what it prints."""
    code = re.search(r"<!-- begin: example -->\n```python\n(.*?)```", readme, re.DOTALL).group(1)
    printed = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed):
        exec(code, {})  # the README's own code
    return f"```python\n{code}```\n\n```text\n{printed.getvalue().rstrip()}\n```"


def filled(readme: str, blocks: dict[str, str]) -> str:
    """The README with its marked blocks replaced."""
    for name, text in blocks.items():
        pattern = rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)"
        readme, count = re.subn(
            pattern, lambda match, text=text: f"{match[1]}{text}\n{match[2]}", readme, flags=re.DOTALL
        )
        assert count == 1, f"README.md has {count} blocks named {name}"
    return readme


def results() -> str:
    """The block of all tables."""
    return "\n\n".join((stage1_table(), stage2_table(), clips_table(), cost_table()))


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text("utf-8")
    path.write_text(filled(text, {"results": results(), "example": example(text)}), encoding="utf-8")
    (PRETRAINED / "README.md").write_text(model_card(load_pretrained()[0], PRETRAINED), encoding="utf-8")
