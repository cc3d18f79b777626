"""Write the measured blocks of the README, the pages and the shipped card from the result files.

    python benchmarks/fill_readme.py

`tests/test_readme.py` fails where a page does not have what this script would write.
"""

import re
from collections.abc import Callable
from pathlib import Path

import evaluation_tables as tables
from ablations.planted import make_planted_table
from evaluation_tables import load, number, paragraphs, table

from mma_mrnnet.analysis import study_page as page
from mma_mrnnet.analysis.study_summary import StudySummary
from mma_mrnnet.hub.cards import model_card
from mma_mrnnet.hub.checkpoints import load_pretrained

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = ROOT / "mma_mrnnet" / "pretrained"
RESULTS = ROOT / "benchmarks" / "results"


def readme_blocks() -> dict[str, str]:
    """Return the one small table of the README."""
    evaluation = load(PRETRAINED / "results_evaluation.json")
    reactions = load(PRETRAINED / "results_mrnn.json")["test"]["reactions"]
    ridge = load(PRETRAINED / "results_ceiling.json")["reported_affect"]["mean"]
    smiles = load(RESULTS / "smiles_by_people.json")["scores"]["all"]
    cost = load(RESULTS / "predict_cost.json")["predict"]
    photos = f"{smiles['smiling']} photos of smiles, people left out, short training"
    scores = f"{number(reactions['mean_pearson'])}; ridge regression {number(ridge)}"
    spent = f"{cost['wall_s']:.0f} s, {cost['peak_mb'] / 1000:.1f} GB (imports included)"
    rows = [
        *tables.readme_rows(evaluation),
        [photos, "read as smiling", str(smiles["smiling_read_so"])],
        [f"{reactions['clips']} *simulated* clips", "mean Pearson of the intensities", scores],
        ["a 12 s clip of 720p, one CPU thread", "time, memory", spent],
    ]
    return {"results": table(["measured on", "what", "value [95 % interval]"], rows)}


def result_blocks() -> dict[str, str]:
    """Return the blocks of docs/results.md."""
    training = load(PRETRAINED / "results_mma.json")
    evaluation = load(PRETRAINED / "results_evaluation.json")
    reactions = load(PRETRAINED / "results_mrnn.json")
    ceiling = load(PRETRAINED / "results_ceiling.json")
    clips = load(RESULTS / "real_clips.json")["clips"]
    return {
        "stage 1": tables.evaluation_part(evaluation),
        "units": tables.units_table(evaluation, training),
        "calibration": tables.calibration_table(training),
        "smiles": tables.smiles_table(load(RESULTS / "smiles_by_people.json")),
        "stage 2": tables.reactions_part(reactions, ceiling, load(RESULTS / "other_pooling.json")),
        "recurrent part": tables.recurrent_part(
            load(RESULTS / "recurrent_against_ridge.json"),
            load(RESULTS / "known_answer_tables.json"),
        ),
        "responses": tables.responses_part(load(RESULTS / "responses.json")),
        "clips": tables.clips_part(clips),
        "courses": tables.courses_text(clips),
        "changed clips": tables.changed_table(clips),
        "cost": prediction_cost(),
    }


def prediction_cost() -> str:
    """Return time and memory of the command line."""
    cost = load(RESULTS / "predict_cost.json")
    labels = {
        "predict": "`predict`",
        "predict_fps_native": "`predict --fps native`",
        "import_only": "`import mma_mrnnet` alone",
        "predict_with_pytorch": "`predict --engine torch`",
        "help": "`mma-mrnnet --help`",
    }
    rows = []
    for key, label in labels.items():
        times = [number(cost[key][name], 1) for name in ("wall_s", "cpu_s")]
        rows.append([label, *times, f"{cost[key]['peak_mb']:.0f} MB"])
    steps = dict(cost["cpu_seconds_by_step_on_every_frame"])
    frames = steps.pop("frames")
    spent = ", ".join(f"{name} {number(value)}" for name, value in steps.items())
    return paragraphs(
        f"A 12 s clip of 720p with 360 frames, one thread of {cost['machine']['processor']}:",
        table(["", "wall s", "CPU s", "peak memory"], rows),
        f"CPU seconds by step, all {frames} frames in one process: {spent}.",
    )


def stored_crops_blocks() -> dict[str, str]:
    """Return the block of docs/own_data.md."""
    result = load(RESULTS / "stored_crops.json")
    kinds = {"jpg": "`jpg`, quality 95, 4:4:4 (default)", "png": "`png`"}
    rows = []
    for name, row in result["formats"].items():
        mean = number(row["affect_mean_difference"], 4)
        largest = number(row["affect_largest_difference"], 3)
        intensities = number(row["intensities_largest_difference"], 4)
        size = f"{row['bytes_a_crop']:.0f}"
        rows.append([kinds[name], size, f"{mean}, {largest}", intensities])
    one, two = result["crops_a_second_of_every_frame"].values()
    text = paragraphs(
        table(["`--format`", "bytes a crop", "affect: mean, largest", "intensities"], rows),
        f"Differences from reading the video, by `{result['command']}`: {result['what']}. "
        f"Every frame stored as jpg: {one:.0f} crops a second by one worker, {two:.0f} by two "
        f"({result['machine']['processor']}).",
    )
    return {"stored crops": text}


def training_blocks() -> dict[str, str]:
    """Return the block of docs/training.md: speed and memory of both stages."""
    first, second = load(RESULTS / "stage1_training.json"), load(RESULTS / "stage2_training.json")
    readers = {"0 workers": "the training process", "1 workers": "a worker beside it"}
    networks = [name for name, row in first.items() if isinstance(row, dict) and "0 workers" in row]
    speeds = []
    for network in networks:
        for key, reader in readers.items():
            row = first[network][key]
            rates = [number(row[f"{which}_images_a_second"], 1) for which in ("loop", "bare")]
            speeds.append([network, reader, *rates, f"{100 * row['share_of_bare']:.0f} %"])
    steps = []
    for rate, most in (("2 fps", 30), ("30 fps", 450)):
        both, epoch = second[rate]["both"], second[rate]["masked"]
        seconds = [number(both[f"{which}_cpu_s_a_step"], 3) for which in ("masked", "packed")]
        memory = f"{epoch['peak_mb']:.0f} MB, {epoch['peak_mb_before_training']:.0f} MB"
        disk = f"{second[rate]['affect_on_disk_mb']:.0f} MB"
        steps.append(
            [f"{rate.split()[0]}, {most}", *seconds, f"{epoch['wall_s']:.0f} s", memory, disk]
        )
    heads = ["step, masked", "step, packed", "epoch", "peak memory, of which imports", "affect"]
    text = paragraphs(
        "**Stage 1**, images a second through the loop and through the bare network "
        f"({first['what']}; {first['machine']['processor']}; `{first['command']}`):",
        table(["network", "data read by", "loop", "bare", "share"], speeds),
        f"**Stage 2** ({second['what']}; `{second['command']}`), CPU seconds a step, against the "
        "same network on packed sequences; memory includes pages that processes share:",
        table(["frames a second, T", *heads], steps),
    )
    return {"training cost": text}


def onnx_blocks() -> dict[str, str]:
    """Return the block of docs/sharing.md."""
    cost = load(RESULTS / "onnx_cost.json")
    rows = []
    for name in ("extractor, batch 1", "extractor, batch 32", "intensities, batch 1"):
        row = cost[name]
        times = [number(1000 * row[f"{which}_cpu_s"], 1) for which in ("torch", "onnxruntime")]
        rows.append([name, *times, number(row["torch_over_onnxruntime"], 1)])
    sizes = ", ".join(f"`{name}` {number(size, 1)} MB" for name, size in cost["megabytes"].items())
    text = paragraphs(
        f"CPU milliseconds a call of {cost['what']} (PyTorch {cost['torch']}, onnxruntime "
        f"{cost['onnxruntime']}, {cost['machine']['processor']}, not idle: read the ratios):",
        table(["", "PyTorch", "onnxruntime", "ratio"], rows),
        f"Files: {sizes}. Measured by `{cost['command']}`.",
    )
    return {"onnx cost": text}


def space_blocks() -> dict[str, str]:
    """Return the block of docs/reports.md."""
    result = load(RESULTS / "space_load.json")
    at_once = result["at_once"]
    measured = {
        "page load, nothing cached": result["page_load"],
        "upload to the last figure, one visitor": result["upload_to_result"],
        f"upload to answer, {at_once['users']} users at once": at_once,
        "live: from the camera's turn to the chart": result["live_lag"],
    }
    rows = [
        [what, number(row["median_s"]), number(row["worst_s"]), str(row["count"])]
        for what, row in measured.items()
    ]
    text = paragraphs(
        f"By `{result['command']}` ({result['what']}; {result['machine']['processor']}, load "
        f"average {result['load_average']} before it began, so other work was in the way):",
        table(["", "median s", "worst s", "count"], rows),
        f"Of the {at_once['count']} answers to users at once "
        f"{at_once['answers_of_their_own_clip']} were of their own clip. "
        f"The page answered {number(result['server_start_s'], 1)} s after its start.",
    )
    return {"space load": text}


SHOWN_QUESTIONS = {
    "simulated": ("channels", "length", "loss", "frames", "routing", "planted"),
    "drawn": ("length", "loss", "extractor", "pixels"),
}
"""The questions of each study whose tables ablations.md shows."""


def ablation_blocks() -> dict[str, str]:
    """Return the blocks of benchmarks/ablations.md."""
    studies = {
        name: StudySummary.from_json(load(RESULTS / f"ablations_{name}.json"))
        for name in SHOWN_QUESTIONS
    }
    simulated, drawn = studies.values()
    blocks = {"experiments": tables.experiments_table(simulated, drawn)}
    for name, summary in studies.items():
        minutes = 60 * summary.training_hours / summary.jobs
        runs = sum(len(row.seeds) for row in summary.variants if row.seconds is not None)
        cost = f"{runs} trainings, {minutes:.0f} minutes with {summary.jobs} at once"
        blocks[f"{name} data"] = f"{page.describe_study(summary)} {cost}."
        for question in SHOWN_QUESTIONS[name]:
            blocks[f"{name} {question}"] = page.make_table(summary, question)
    blocks["simulated planted"] = make_planted_table(simulated)
    blocks["simulated by length"] = page.make_length_table(simulated, ("length", "planted"))
    blocks["transfer"] = page.make_transfer_table(simulated)
    blocks["extractors"] = page.make_extractor_table(drawn)
    return blocks


PAGES: dict[str, Callable[[], dict[str, str]]] = {
    "README.md": readme_blocks,
    "docs/results.md": result_blocks,
    "docs/own_data.md": stored_crops_blocks,
    "docs/training.md": training_blocks,
    "docs/sharing.md": onnx_blocks,
    "docs/reports.md": space_blocks,
    "benchmarks/ablations.md": ablation_blocks,
}
"""Each page with measured blocks, and the function that makes them."""


def fill(text: str, blocks: dict[str, str]) -> str:
    """Replace each marked block of a page; a block that is not there exactly once is refused."""
    for name, block in blocks.items():
        pattern = rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)"
        parts = re.findall(pattern, text, flags=re.DOTALL)
        assert len(parts) == 1, f"{len(parts)} blocks are named {name}"
        begin, end = parts[0]
        text = re.sub(pattern, lambda _, new=begin + block + "\n" + end: new, text, flags=re.DOTALL)
    return text


def main() -> None:
    """Write all pages and the card."""
    for name, blocks in PAGES.items():
        path = ROOT / name
        path.write_text(fill(path.read_text("utf-8"), blocks()), encoding="utf-8")
    card = model_card(load_pretrained()[0], PRETRAINED)
    (PRETRAINED / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
