"""What `evaluation.json` holds, and `results_evaluation.json` beside a checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from mma_mrnnet.analysis.extractor_scores import GroupScores, SourceScores, TalkerScores
from mma_mrnnet.metrics import rounded
from mma_mrnnet.results import Provenance, Record

FORMAT = 1
"""The number under `format` in the files that this version writes; files without one are older."""


@dataclass(frozen=True)
class ModelCosts(Record):
    """Size of a network, CPU time a face, and a digest of its weights (None: not recorded)."""

    name: str
    parameters: int
    megabytes: float
    cpu_ms_a_face: float
    threads: int
    processor: str
    weights: str | None = None


@dataclass(frozen=True)
class EvaluatedData(Record):
    """The images; `provenance` of their sources is empty if it was not recorded."""

    data: str
    split: str
    images: int
    people: int
    provenance: list[Provenance] = field(default_factory=list)


@dataclass(frozen=True)
class Group(Record):
    """Scores of the images that look alike, by source."""

    name: str
    sources: dict[str, GroupScores]


@dataclass(frozen=True)
class Comparison(Record):
    """Another model on the same images."""

    model: ModelCosts
    sources: dict[str, SourceScores]


@dataclass(frozen=True)
class EvaluationResults(Record):
    """The report of an extractor.

    Attributes:
        command: the command that wrote it.
        model: what was evaluated.
        data: on which images.
        sources: scores of each source.
        neutral_talkers: what calm talkers are taken for, by source; without the sources whose labels
            are another model's.
        groups: scores by `pose`, `blur` and `grey`.
        against: another model on the same images.
        what: description of the file.
    """

    command: str
    model: ModelCosts
    data: EvaluatedData
    sources: dict[str, SourceScores]
    neutral_talkers: dict[str, TalkerScores]
    groups: dict[str, list[Group]]
    against: Comparison | None
    what: str = (
        "stage 1 (face crop to valence-arousal, expressions and action units) on labelled face "
        "crops; intervals are 95 %, by drawing people, not images, 1000 times; sources are never "
        "put together"
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded, with the format's number."""
        content: dict[str, Any] = rounded(super().to_json())
        return {"format": FORMAT, **content}
