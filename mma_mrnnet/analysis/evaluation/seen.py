"""One pass over labelled crops: what an extractor says of each and of changed copies, and how the crops look."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mma_mrnnet.analysis.evaluation.looks import CHANGES, MIRROR, Looks, groups_of, looks_of
from mma_mrnnet.analysis.evaluation.scores import (
    PHOTOS,
    Answers,
    answers_of,
    expression_macro_f1,
    mean_correlation,
    source_report,
    talkers_report,
)
from mma_mrnnet.faces.affect import CHUNK, extract_affect
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.datasets import FrameDataset

CHANGED_IMAGES = 200
"""Of each source, evenly spread, whose changed copies the model sees: enough for a mean, and minutes saved."""

LEAST_IMAGES = 20
"""Of a group that is scored: a correlation over fewer says nothing."""


@dataclass
class Extractor:
    """A model to evaluate: its name in reports, the network and what scales its crops."""

    name: str
    network: MMAModel
    processor: MMAMRNNetVideoProcessor


@dataclass
class Seen:
    """What was collected of a split in one pass.

    Attributes:
        answers: of all N images.
        sources: (N,) their sources.
        looks: of all images.
        mirrored: (N, 2 + 7 + A) outputs for the mirrored crops.
        spread: numbers of the images whose changed copies were seen.
        changed: outputs for these, by the change.
    """

    answers: Answers
    sources: np.ndarray
    looks: Looks
    mirrored: Tensor
    spread: Tensor
    changed: dict[str, Tensor]

    def by_source(self) -> dict[str, Answers]:
        """The answers of each source."""
        return {
            str(source): self.answers.of(self._of(source)) for source in np.unique(self.sources)
        }

    def report(self) -> dict:
        """All parts of the report that need the answers."""
        parts = self.by_source()
        return {
            "sources": {source: source_report(answers) for source, answers in parts.items()},
            "neutral_talkers": {
                source: talkers_report(answers)
                for source, answers in parts.items()
                if source not in PHOTOS
            },
            "groups": self._groups(),
            "invariance": {
                change: self._invariance(outputs) for change, outputs in self.changed.items()
            },
            "mirrored_average": self._mirrored_average(),
        }

    def _of(self, source: str) -> Tensor:
        return torch.from_numpy(self.sources == source)

    def _groups(self) -> dict:
        groups: dict = {}
        for kind, members in groups_of(self.looks, self.sources).items():
            groups[kind] = []
            for name, inside in members.items():
                own = {
                    str(source): self.answers.of(inside & self._of(source))
                    for source in np.unique(self.sources)
                }
                scores = {
                    source: _plain_scores(answers)
                    for source, answers in own.items()
                    if len(answers.subjects)
                }
                groups[kind].append({"name": name, "sources": scores})
        return groups

    def _invariance(self, outputs: Tensor) -> dict:
        found = {}
        for source in np.unique(self.sources):
            own = self._of(source)[self.spread]
            before = self.answers.of(self.spread[own])
            after = _answering(before, outputs[own])
            same = before.probabilities.argmax(-1) == after.probabilities.argmax(-1)
            found[str(source)] = {
                "affect_mean_difference": float((after.affect - before.affect).abs().mean()),
                "action_unit_correlation_change": mean_correlation(after)
                - mean_correlation(before),
                "expression_agreement": float(same.double().mean()),
            }
        return found

    def _mirrored_average(self) -> dict:
        averaged = _answering(self.answers, (self.answers.affect + self.mirrored) / 2)
        found = {}
        for source in np.unique(self.sources):
            scores = _plain_scores(averaged.of(self._of(source)))
            found[str(source)] = {name: value for name, value in scores.items() if name != "images"}
        return found


def _plain_scores(answers: Answers) -> dict:
    images = len(answers.subjects)
    enough = images >= LEAST_IMAGES
    several = len(answers.expression[answers.expression != NO_CLASS].unique()) > 1
    return {
        "images": images,
        "mean_action_unit_correlation": mean_correlation(answers) if enough else None,
        "expression_macro_f1": expression_macro_f1(answers) if enough and several else None,
    }


def _answering(answers: Answers, affect: Tensor) -> Answers:
    return Answers(**{**vars(answers), "affect": affect})


def see(rows: FrameDataset, extractor: Extractor) -> Seen:
    """One pass over the crops: what the model says of each, of its mirror image, and of changed copies of some."""
    sources = np.asarray(rows.sources, dtype=str)
    spread = evenly_spread(sources, CHANGED_IMAGES)
    detector, looks = FaceDetector(), []
    affect: list[np.ndarray] = []
    mirrored: list[np.ndarray] = []
    changed: dict[str, list[np.ndarray]] = {name: [] for name in CHANGES if name != MIRROR}
    chosen = set(spread.tolist())
    for numbers in tqdm(chunks_of(len(rows)), desc="crops", unit="chunk", leave=False):
        crops = [rows[number]["crop"].numpy() for number in numbers]
        looks += [looks_of(crop, detector) for crop in crops]
        affect.append(says(crops, extractor))
        mirrored.append(says([CHANGES[MIRROR](crop) for crop in crops], extractor))
        some = [crop for number, crop in zip(numbers, crops, strict=True) if number in chosen]
        for name, outputs in changed.items():
            outputs.append(says([CHANGES[name](crop) for crop in some], extractor))
    of_mirrored = torch.from_numpy(np.concatenate(mirrored))
    return Seen(
        answers_of(
            rows, torch.from_numpy(np.concatenate(affect)), extractor.network.config.action_units
        ),
        sources,
        Looks(*torch.tensor(looks).unbind(1)),
        of_mirrored,
        spread,
        {MIRROR: of_mirrored[spread]}
        | {name: torch.from_numpy(np.concatenate(outputs)) for name, outputs in changed.items()},
    )


def evenly_spread(sources: np.ndarray, most: int) -> Tensor:
    """Numbers, in order, of at most `most` images of each source, evenly spread over it."""
    kept = []
    for source in np.unique(sources):
        own = np.flatnonzero(sources == source)
        kept.append(own[np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int)])
    return torch.from_numpy(np.sort(np.concatenate(kept)))


def says(crops: list[np.ndarray], extractor: Extractor) -> np.ndarray:
    """(n, 2 + 7 + A) float32 of n crops."""
    return extract_affect(crops, extractor.network, extractor.processor)


def chunks_of(count: int) -> list[range]:
    """The numbers below `count`, as many at once as go through the network together."""
    return [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
