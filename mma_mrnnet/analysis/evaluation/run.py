"""The report of an extractor on a split of labelled crops: models and data read, costs measured, files written."""

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from mma_mrnnet.analysis.evaluation.page import page
from mma_mrnnet.analysis.evaluation.pictures import draw_failures, draw_scores
from mma_mrnnet.analysis.evaluation.scores import PHOTOS, answers_of, source_report
from mma_mrnnet.analysis.evaluation.seen import Extractor, chunks_of, says, see
from mma_mrnnet.hub.checkpoints import load_extractor, pretrained_folder, weights_digest
from mma_mrnnet.metrics import rounded
from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.training.checkpoints import write_json, write_text
from mma_mrnnet.training.datasets import FrameDataset
from mma_mrnnet.training.frame_corpora import read_frames

SHIPPED = "shipped"
"""The word for the checkpoint inside the package."""

DRAWN_ITEMS = 2000
DRAWN_SEED = 2**31 - 3
"""Faces drawn for evaluation: as many as `train.py` draws by default, from a seed that nobody trains with."""

LABELLED_CROPS = PHOTOS | {"warp", "render"}
LABEL_ORIGIN = {
    "action_units": "photos: pseudo-labels of a landmark model; bent photos and renders: known by construction; "
    "nothing is coded by people",
    "expressions": "constructed (bent photos, renders), posed (london, canada: neutral and smiling alone, weak smiles "
    "left out by a landmark model) or picked by a landmark model (congress: neutral alone)",
    "valence_arousal": "a heuristic of the data set's makers, one point an expression times its intensity; "
    "no measurement",
}
"""Where the labels of the labelled crops come from, told wherever all sources are theirs."""


def read_extractor(name: str) -> Extractor:
    """The extractor of a folder or repository, or of the `shipped` checkpoint.

    Raises:
        CheckpointError: it cannot be loaded or holds no extractor.
    """
    return Extractor(name, *load_extractor(pretrained_folder() if name == SHIPPED else name))


def evaluate(
    model: str,
    data: str,
    out: Path,
    *,
    against: str | None,
    split: str,
    pictures: Sequence[str],
    command: str,
) -> dict:
    """Writes `evaluation.json`, `.md` and `.png` into a folder, and `failures.png` where sources are named for it.

    Args:
        model: a stage-1 or stage-2 checkpoint, or `shipped`.
        data: labelled crops as `--stage mma --data` takes them.
        out: made where it is missing.
        against: another checkpoint, scored on the same images.
        split: `train` or `validation`.
        pictures: sources of whose crops failures are shown.
        command: for the report.

    Returns:
        What `evaluation.json` holds.

    Raises:
        ValueError: a checkpoint without an extractor, data that cannot be read or have no label, or no such source.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; a folder is needed")
    extractor = read_extractor(model)
    other = None if against is None else read_extractor(against)
    units = extractor.network.config.action_units
    if other is not None and other.network.config.action_units != units:
        raise ValueError(
            f"--against {against}: its action units are {other.network.config.action_units}; {model} has {units}"
        )
    rows = read_rows(data, split, extractor)
    unknown = sorted(set(pictures) - set(rows.sources))
    if unknown:
        raise ValueError(
            f"--pictures: no source is called {', '.join(unknown)}; there are {', '.join(sorted(set(rows.sources)))}"
        )
    seen = see(rows, extractor)
    report = {
        "what": "stage 1 (face crop to valence-arousal, expressions and action units) on labelled face crops; "
        "intervals are 95 %, by drawing people, not images, 1000 times; sources are never put together",
        "command": command,
        "model": costs(extractor),
        "data": data_facts(data, split, rows),
        **seen.report(),
        "against": None if other is None else against_report(other, rows),
    }
    report = rounded(report)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", report)
    write_text(out / "evaluation.md", page(report))
    draw_scores(out / "evaluation.png", report, seen.by_source())
    if pictures:
        draw_failures(out / "failures.png", rows, seen.answers, pictures)
    return report


def read_rows(data: str, split: str, extractor: Extractor) -> FrameDataset:
    """The labelled crops of a split, with the extractor's units.

    Raises:
        ValueError: data that cannot be read, or without one label.
    """
    config = extractor.network.config
    frames = read_frames(
        data, config.action_units, items=DRAWN_ITEMS, seed=DRAWN_SEED, image_size=config.image_size
    )
    rows = FrameDataset(frames.splits[split], config.action_units)
    labelled = (
        (~rows.intensity.isnan()).any(1)
        | (rows.expression != NO_CLASS)
        | (~rows.valence_arousal.isnan()).any(1)
    )
    if not labelled.any():
        raise ValueError(
            f"--data {data}: none of the {len(rows)} {split} images has a label of what the model says"
        )
    return rows


# What else is told -------------------------------------------------------------------------------------------------


def against_report(other: Extractor, rows: FrameDataset) -> dict:
    """Costs and scores of another model, with the same units, on the same images."""
    chunks = [
        says([rows[number]["crop"].numpy() for number in numbers], other)
        for numbers in chunks_of(len(rows))
    ]
    answers = answers_of(
        rows, torch.from_numpy(np.concatenate(chunks)), other.network.config.action_units
    )
    sources = np.asarray(rows.sources, dtype=str)
    own = {
        str(source): answers.of(torch.from_numpy(sources == source))
        for source in np.unique(sources)
    }
    return {
        "model": costs(other),
        "sources": {source: source_report(part) for source, part in own.items()},
    }


def costs(extractor: Extractor) -> dict:
    """Size of the network, and the processor's time for a face: 16 at once, one thread, the best of five."""
    network = extractor.network
    size = network.config.image_size
    pixels = torch.zeros(16, 3, size, size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        with torch.inference_mode():
            network(pixels)
            for _ in range(5):
                start = time.process_time()
                network(pixels)
                times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return {
        "name": extractor.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "megabytes": sum(
            value.numel() * value.element_size() for value in network.state_dict().values()
        )
        / 1e6,
        "cpu_ms_a_face": min(times) / len(pixels) * 1e3,
        "threads": 1,
        "processor": processor_name(),
        "weights": weights_digest(network),
    }


def processor_name() -> str:
    """What the system calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def data_facts(data: str, split: str, rows: FrameDataset) -> dict:
    """What was looked at, and where its labels come from, as far as that is known."""
    origin: Mapping[str, str] | None = LABEL_ORIGIN if set(rows.sources) <= LABELLED_CROPS else None
    return {
        "data": data,
        "split": split,
        "images": len(rows),
        "people": len(set(rows.subjects)),
        "label_origin": origin,
    }
