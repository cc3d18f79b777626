"""`mma-mrnnet evaluate`: report on an extractor, on a split of labelled face crops."""

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mma_mrnnet.analysis.copies import DARK, DISTURBED, MIRRORED, Extractor
from mma_mrnnet.analysis.evaluation_page import draw_failures, draw_scores, make_page
from mma_mrnnet.analysis.extractor_scores import (
    Answers,
    score_source,
    score_talkers,
    split_by_source,
)
from mma_mrnnet.analysis.time_courses import (
    PREFIX,
    read_courses,
    read_references,
    score_courses,
)
from mma_mrnnet.corpora import LabelledFrames
from mma_mrnnet.faces.affect import CHUNK
from mma_mrnnet.files import check_can_write_file, write_json, write_text
from mma_mrnnet.hub.checkpoints import weights_digest
from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.results import (
    ComparedModel,
    EvaluatedData,
    EvaluationResults,
    ModelCosts,
)
from mma_mrnnet.training.datasets import FrameDataset
from mma_mrnnet.training.frame_corpora import read_frames

DRAWN_ITEMS = 2000
DRAWN_SEED = 2**31 - 3
"""Drawn faces for evaluation: as many as `train.py` draws, with a seed reserved for this."""


def evaluate(
    model: str,
    data: str,
    out: Path,
    *,
    against: str | None,
    split: str,
    pictures: Sequence[str],
    command: str,
) -> EvaluationResults:
    """Write `evaluation.json`, `.md`, `.png` and, if asked for, `failures.png` into a folder.

    `model` and `against` are checkpoints of either stage, or `shipped`; `data` is as in
    `--stage mma --data`, or clips (see `read_references`); `split` is `train` or `validation`;
    `pictures` names the sources whose failures are shown; `command` is recorded.

    Raises:
        ValueError: a checkpoint without an extractor, unreadable or unlabelled data, or an
            unknown source.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; a folder is needed")
    there = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    check_can_write_file(there / "evaluation.json")  # before the work, not after it
    extractor = Extractor.read(model)
    other = None if against is None else Extractor.read(against)
    units = extractor.network.config.action_units
    if other is not None and other.network.config.action_units != units:
        raise ValueError(
            f"--against {against}: its action units are {other.network.config.action_units}; "
            f"{model} has {units}"
        )
    if data.startswith(PREFIX):
        if pictures:
            raise ValueError("--pictures needs labelled crops; clips are never shown")
        results = evaluate_clips(extractor, other, data, command)
        return _write(results, out)
    config = extractor.network.config
    frames = read_frames(
        data,
        units,
        items=DRAWN_ITEMS,
        seed=DRAWN_SEED,
        image_size=config.image_size,
        required=(split,),
    )
    rows = FrameDataset(frames.splits[split], units)
    _check_rows(rows, data, split, pictures)

    sources = np.asarray(rows.sources, dtype=str)
    answers = _answer(rows, extractor)
    by_source = split_by_source(answers, sources)
    pseudo = {source.name for source in frames.provenance if source.labels == "pseudo"}
    compared = None
    if other is not None:
        theirs = split_by_source(_answer(rows, other), sources)
        scores = {source: score_source(own) for source, own in theirs.items()}
        compared = ComparedModel(measure_costs(other), scores)
    results = EvaluationResults(
        command=command,
        model=measure_costs(extractor),
        data=_describe_data(data, split, rows, frames),
        sources={source: score_source(own) for source, own in by_source.items()},
        neutral_talkers={
            source: score_talkers(own) for source, own in by_source.items() if source not in pseudo
        },
        against=compared,
    )
    results = _write(results, out)
    draw_scores(out / "evaluation.png", by_source)
    if pictures:
        draw_failures(out / "failures.png", rows, answers, pictures)
    return results


def evaluate_clips(
    extractor: Extractor, other: Extractor | None, data: str, command: str
) -> EvaluationResults:
    """Score an extractor, and another one if given, on clips with reference time courses."""
    units = extractor.network.config.action_units
    references = read_references(Path(data.removeprefix(PREFIX)), units)
    first, *more = (
        (measure_costs(one), score_courses(read_courses(references, one), units))
        for one in (extractor, other)
        if one is not None
    )
    costs, scores = first
    frames = sum(clip.frames for clip in scores.clips.values())
    return EvaluationResults(
        command=command,
        model=costs,
        data=EvaluatedData(data, "all", frames, len(references)),
        sources={},
        neutral_talkers={},
        against=ComparedModel(more[0][0], {}, more[0][1]) if more else None,
        what="action units against reference time courses; intervals are 95 %, by drawing clips",
        time_courses=scores,
    )


def _write(results: EvaluationResults, out: Path) -> EvaluationResults:
    """Write the file and the page, and return the results as the file holds them."""
    content = results.to_json()
    results = EvaluationResults.from_json(content)  # rounded; None where undefined
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", content)
    write_text(out / "evaluation.md", make_page(results))
    return results


def _check_rows(rows: FrameDataset, data: str, split: str, pictures: Sequence[str]) -> None:
    labelled = (
        (~rows.intensity.isnan()).any(1)
        | (rows.expression != NO_CLASS)
        | (~rows.valence_arousal.isnan()).any(1)
    )
    if not labelled.any():
        raise ValueError(
            f"--data {data}: none of the {len(rows)} {split} images has a label of any output"
        )
    known = sorted(set(rows.sources))
    unknown = sorted(set(pictures) - set(known))
    if unknown:
        raise ValueError(
            f"--pictures: unknown source {', '.join(unknown)}; there are {', '.join(known)}"
        )


def _answer(rows: FrameDataset, extractor: Extractor) -> Answers:
    """Return the outputs for the crops of a split, and for copies of them."""
    affect, copies = [], []
    for crops in _read_chunks(rows):
        affect.append(extractor.read_affect(crops))
        copies.append(extractor.read_copies(crops, (MIRRORED, DARK, DISTURBED)))
    joined = (torch.from_numpy(np.concatenate(parts)) for parts in (affect, copies))
    return Answers.join(rows, *joined)


def _read_chunks(rows: FrameDataset) -> Any:
    """Yield the crops of a split in batches for the network."""
    starts = range(0, len(rows), CHUNK)
    for first in tqdm(starts, desc="crops", unit="chunk", leave=False):
        places = range(first, min(first + CHUNK, len(rows)))
        yield [rows[place]["crop"].numpy() for place in places]


def measure_costs(extractor: Extractor) -> ModelCosts:
    """Measure network size and CPU time per face: batch of 16, one thread, best of five."""
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
    state = network.state_dict().values()
    return ModelCosts(
        name=extractor.name,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        megabytes=sum(value.numel() * value.element_size() for value in state) / 1e6,
        cpu_ms_a_face=min(times) / len(pixels) * 1e3,
        threads=1,
        processor=read_processor_name(),
        weights=weights_digest(network),
    )


def read_processor_name() -> str:
    """Return the system's name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _describe_data(
    data: str, split: str, rows: FrameDataset, frames: LabelledFrames
) -> EvaluatedData:
    present = set(rows.sources)
    provenance = [source for source in frames.provenance if source.name in present]
    people = len(set(rows.subjects))
    return EvaluatedData(data, split, len(rows), people, provenance=provenance)
