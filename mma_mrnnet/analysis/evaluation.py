"""`mma-mrnnet evaluate`: report on an extractor, on a split of labelled face crops."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mma_mrnnet.analysis.evaluation_page import draw_failures, draw_scores, make_page
from mma_mrnnet.analysis.extractor_scores import (
    Answers,
    Looks,
    group_looks,
    measure_looks,
    score_group,
    score_source,
    score_talkers,
    split_by_source,
)
from mma_mrnnet.corpora import LabelledFrames
from mma_mrnnet.faces.affect import CHUNK, extract_affect
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.files import write_json, write_text
from mma_mrnnet.hub.checkpoints import load_extractor, pretrained_folder, weights_digest
from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import (
    ComparedModel,
    EvaluatedData,
    EvaluationResults,
    LookGroup,
    ModelCosts,
)
from mma_mrnnet.training.datasets import FrameDataset
from mma_mrnnet.training.frame_corpora import read_frames

SHIPPED = "shipped"
"""Name of the checkpoint inside the package."""

DRAWN_ITEMS = 2000
DRAWN_SEED = 2**31 - 3
"""Drawn faces for evaluation: as many as `train.py` draws, with a seed reserved for this."""


@dataclass
class Extractor:
    """A model to evaluate: its name in reports, the network, and its processor."""

    name: str
    network: MMAModel
    processor: MMAMRNNetVideoProcessor

    @classmethod
    def read(cls, name: str) -> Self:
        """Load an extractor (folder, repository or `shipped`), or raise CheckpointError."""
        return cls(name, *load_extractor(pretrained_folder() if name == SHIPPED else name))


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
    `--stage mma --data`; `split` is `train` or `validation`; `pictures` names the sources
    whose failures are shown; `command` is recorded.

    Raises:
        ValueError: a checkpoint without an extractor, unreadable or unlabelled data, or an
            unknown source.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; a folder is needed")
    extractor = Extractor.read(model)
    other = None if against is None else Extractor.read(against)
    units = extractor.network.config.action_units
    if other is not None and other.network.config.action_units != units:
        raise ValueError(
            f"--against {against}: its action units are {other.network.config.action_units}; "
            f"{model} has {units}"
        )
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
    affect, looks = _look_at(rows, extractor)
    answers = Answers.join(rows, affect)
    by_source = split_by_source(answers, sources)
    pseudo = {source.name for source in frames.provenance if source.labels == "pseudo"}
    comparison = None if other is None else _compare(other, rows, sources)
    results = EvaluationResults(
        command=command,
        model=measure_costs(extractor),
        data=_describe_data(data, split, rows, frames),
        sources={source: score_source(own) for source, own in by_source.items()},
        neutral_talkers={
            source: score_talkers(own) for source, own in by_source.items() if source not in pseudo
        },
        groups=score_groups(answers, looks, sources),
        against=comparison,
    )
    content = results.to_json()
    results = EvaluationResults.from_json(content)  # rounded; None where undefined
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", content)
    write_text(out / "evaluation.md", make_page(results))
    draw_scores(out / "evaluation.png", results, by_source)
    if pictures:
        draw_failures(out / "failures.png", rows, answers, pictures)
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


def _look_at(rows: FrameDataset, extractor: Extractor) -> tuple[Tensor, Looks]:
    """Return (N, 2 + 7 + A) outputs for the crops of a split, and their looks."""
    detector = FaceDetector()
    affect: list[np.ndarray] = []
    looks: list[list[float]] = []
    for crops in _read_chunks(rows):
        looks += measure_looks(crops, detector)
        affect.append(extract_affect(crops, extractor.network, extractor.processor))
    return torch.from_numpy(np.concatenate(affect)), Looks(*torch.tensor(looks).unbind(1))


def _read_chunks(rows: FrameDataset) -> Any:
    """Yield the crops of a split in batches for the network."""
    starts = range(0, len(rows), CHUNK)
    for first in tqdm(starts, desc="crops", unit="chunk", leave=False):
        places = range(first, min(first + CHUNK, len(rows)))
        yield [rows[place]["crop"].numpy() for place in places]


def score_groups(answers: Answers, looks: Looks, sources: np.ndarray) -> dict[str, list[LookGroup]]:
    """Score groups of images that look alike, by source."""
    groups: dict[str, list[LookGroup]] = {}
    for kind, members in group_looks(looks, sources).items():
        groups[kind] = []
        for name, inside in members.items():
            own = split_by_source(answers.select(inside), sources[inside.numpy()])
            scores = {source: score_group(part) for source, part in own.items()}
            groups[kind].append(LookGroup(name, scores))
    return groups


def _compare(other: Extractor, rows: FrameDataset, sources: np.ndarray) -> ComparedModel:
    chunks = [extract_affect(crops, other.network, other.processor) for crops in _read_chunks(rows)]
    answers = Answers.join(rows, torch.from_numpy(np.concatenate(chunks)))
    by_source = split_by_source(answers, sources)
    scores = {source: score_source(own) for source, own in by_source.items()}
    return ComparedModel(measure_costs(other), scores)


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
