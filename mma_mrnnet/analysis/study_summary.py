"""Summarize the runs of a study: means, paired differences, results by clip length."""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from mma_mrnnet.analysis.study import (
    RUN,
    ExtractorRecord,
    RunRecord,
    Settings,
    Study,
    read_record,
)
from mma_mrnnet.analysis.variants import FULL, TRANSFER, Variant
from mma_mrnnet.metrics import (
    People,
    count_constant_as_zero,
    pearson_scores,
    rounded,
)
from mma_mrnnet.results import Record

Array = NDArray[np.float64]

PREDICTIONS = "predictions.npz"

FORMAT = 1
"""`format` number of `ablations.json`; older files have none."""

LENGTH_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles that separate the length groups; padding biases the shortest and longest clips."""

LEAST_GROUP = 30
"""Smallest length group; with fewer clips a correlation is meaningless."""

LEAST_PEOPLE = 20
"""With fewer people, an interval over people is far too narrow."""


# What is written --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference(Record):
    """Mean paired difference with 95 % interval over seeds; None with too few seeds."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0


@dataclass(frozen=True)
class Bounds(Record):
    """95 % interval of a mean difference over resampled people."""

    low: float
    high: float


@dataclass(frozen=True)
class LengthGroup(Record):
    """Scores of clips longer than `above_s`, up to `to_s` seconds; None means no bound."""

    above_s: float | None
    to_s: float | None
    clips: float
    mean: float | None
    difference: Difference


@dataclass(frozen=True)
class TransferScore(Record):
    """Mean Pearson on other data, its deviation over seeds, and the paired difference."""

    mean: float
    sd: float | None
    difference: Difference


@dataclass(frozen=True)
class VariantRow(Record):
    """All measurements of one variant; `mean` and `sd` are over the seeds of `mean_pearson`.

    Attributes:
        against: the variant it is compared with; None for the full model.
        seconds: mean wall time of a run.
        parameters: number of weights outside the extractor.
        length_correlation: mean over targets of |correlation of output and clip length|.
        difference: to `against`; None without common test clips.
        difference_over_people: its interval over resampled people.
        expected_difference: the difference, if known in advance.
    """

    name: str
    question: str
    what: str
    against: str | None
    seeds: list[int]
    mean_pearson: list[float]
    mean: float
    sd: float | None
    seconds: float | None = None
    parameters: int | None = None
    pearson: dict[str, float | None] = field(default_factory=dict)
    length_correlation: float | None = None
    difference: Difference | None = None
    difference_over_people: Bounds | None = None
    expected_difference: float | None = None
    by_length: list[LengthGroup] = field(default_factory=list)
    transfer: dict[str, TransferScore] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtractorRow(Record):
    """Validation scores of an extractor: mean and deviation over the seeds."""

    name: str
    settings: Settings
    seeds: int
    seconds: float
    mean: dict[str, float]
    sd: dict[str, float | None]


@dataclass(frozen=True)
class StudySummary(Record):
    """All numbers of a study: `ablations.json`; `variants` starts with the full model.

    Attributes:
        evaluated_on: `test` or `validation`.
        data_differ_by_seed: whether each seed simulates new data.
        resampled: `people`, or clips.
        length_of_clips_and_labels: the same of the labels.
        left_out: {variant: why it was not trained, or not with every seed}.
        training_hours: total of all processes, including extractors.
        questions: {name: description}; empty in older files.
    """

    data: dict[str, Any]
    evaluated_on: str
    evaluated_clips: int
    labels: list[str]
    seeds: list[int]
    data_differ_by_seed: bool
    resampled: str
    settings: dict[str, Settings | None]
    length_of_clips_and_labels: float
    variants: list[VariantRow]
    extractors: list[ExtractorRow]
    left_out: dict[str, str]
    training_hours: float
    questions: dict[str, str] = field(default_factory=dict)
    jobs: int = 1
    what: str = (
        "variants of the full model, each trained with every seed; mean Pearson over the targets"
    )

    @property
    def full(self) -> VariantRow:
        """The row of the full model."""
        return next(row for row in self.variants if row.name == FULL)

    def rows_of(self, question: str) -> list[VariantRow]:
        """Return the rows of a question's variants."""
        return [row for row in self.variants if row.question == question]

    def to_json(self) -> dict[str, Any]:
        """Return plain rounded values, with the `format` number."""
        return {"format": FORMAT, **rounded(super().to_json())}


# What is read -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One finished run: `run.json`, and the arrays of `predictions.npz`."""

    record: RunRecord
    arrays: Mapping[str, NDArray]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a run's folder; raise ValueError if a file is damaged."""
        record = read_record(folder / RUN, RunRecord)
        path = folder / PREDICTIONS
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(record, {name: file[name] for name in file.files})
        # numpy's error depends on where the archive is damaged.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: damaged ({error}); remove {folder} and run it again"
            ) from error

    @property
    def intensities(self) -> Array:
        """(N, K) outputs."""
        return self.arrays["intensities"].astype(float)

    @property
    def labels(self) -> Array:
        """(N, K) labels, NaN if unlabelled."""
        return self.arrays["labels"].astype(float)

    @property
    def seconds(self) -> Array:
        """(N,) seconds with a face."""
        return self.arrays["seconds"].astype(float)

    def correlate(self, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return (..., K) correlations with the labels, as `score_targets`."""
        return score_targets(self.intensities, self.labels, weights)

    def score(self, chosen: NDArray[np.bool_] | None = None) -> float:
        """Return the mean Pearson over targets, on all held-out clips or the chosen ones."""
        kept = slice(None) if chosen is None else chosen
        return float(score_targets(self.intensities[kept], self.labels[kept]).nanmean())

    def score_elsewhere(self, data: str) -> float:
        """Return the mean Pearson on other data; NaN if not tried."""
        if f"{data}|labels" not in self.arrays:
            return np.nan
        outputs, labels = (self.arrays[f"{data}|{name}"] for name in ("intensities", "labels"))
        return float(score_targets(outputs, labels).nanmean())


def read_runs(study: Study, name: str) -> list[Run]:
    """Return the finished runs of a variant by seed; raise ValueError if a file is damaged."""
    folders = (study.folder / "runs" / name).glob(f"seed-*/{RUN}")
    return sorted((Run.read(path.parent) for path in folders), key=lambda run: run.record.seed)


# From one to the other --------------------------------------------------------------------------


def summarise_study(
    study: Study, variants: Sequence[Variant], left_out: dict[str, str], jobs: int = 1
) -> StudySummary:
    """Compute all numbers of a study from the finished runs of `variants`.

    Differences are paired: both sides of a seed use the same data in the same order. The
    interval is Student's over seeds. Simulated data change with the seed, so it covers data
    and training; files stay the same, so there is a second interval over resampled people.
    Raises ValueError if the full model has no run, or if a file is damaged.
    """
    runs = {variant.name: read_runs(study, variant.name) for variant in variants}
    full = runs.get(FULL) or []
    if not full:
        reason = left_out.get(FULL, "run it first")
        raise ValueError(f"{study.folder}: no finished run of the full model; {reason}")
    done = [variant for variant in variants if runs[variant.name]]
    edges = find_length_edges(full[0].seconds)
    record = full[0].record
    known = record.data.get("people_apart")
    frames = study.frames
    stage1 = None if frames is None else {"data": frames.data, "epochs": frames.epochs}
    extractors = study.folder.glob(f"extractors/*/seed-*/{RUN}")
    seconds = [run.record.seconds for found in runs.values() for run in found]
    seconds += [read_record(path, ExtractorRecord).seconds for path in extractors]
    return StudySummary(
        data=record.data,
        evaluated_on=record.evaluated_on,
        evaluated_clips=len(full[0].labels),
        labels=record.labels,
        seeds=[run.record.seed for run in full],
        data_differ_by_seed=_draws_data(study),
        resampled="people" if known else "clips, as nobody knows the people",
        settings={"clips": record.settings, "frames": stage1},
        length_of_clips_and_labels=float(
            np.mean([correlate_with_length(run.labels, run.seconds) for run in full])
        ),
        variants=[_summarise_variant(study, variant, runs, edges) for variant in done],
        extractors=_summarise_extractors(study, done),
        left_out=left_out,
        training_hours=sum(seconds) / 3600,
        questions=dict(study.questions),
        jobs=jobs,
    )


def _draws_data(study: Study) -> bool:
    return study.base.data.startswith("simulated")


def _summarise_variant(
    study: Study, variant: Variant, runs: dict[str, list[Run]], edges: Array
) -> VariantRow:
    own = runs[variant.name]
    others = {run.record.seed: run for run in runs.get(variant.against, [])}
    pairs = [(run, others[run.record.seed]) for run in own if run.record.seed in others]
    scores = [run.score() for run in own]
    targets = torch.stack([run.correlate() for run in own]).mean(0).tolist()
    lengths = [correlate_with_length(run.intensities, run.seconds) for run in own]
    row: dict[str, Any] = {
        "name": variant.name,
        "question": variant.question,
        "what": variant.what,
        "against": None if variant.name == variant.against else variant.against,
        "seeds": [run.record.seed for run in own],
        "mean_pearson": scores,
        "mean": float(np.mean(scores)),
        "sd": measure_spread(scores),
        "seconds": float(np.mean([run.record.seconds for run in own])),
        "parameters": own[0].record.parameters_of_stage_2,
        "pearson": dict(zip(own[0].record.labels, targets, strict=True)),
        "length_correlation": float(np.mean(lengths)),
        "transfer": {
            data: found
            for data in study.transfer
            if (found := _summarise_transfer(own, pairs, data)) is not None
        },
    }
    if variant.question != TRANSFER:  # those have their own test clips
        row["by_length"] = [
            _summarise_group(own, pairs, low, high) for low, high in pairwise(edges.tolist())
        ]
        if row["against"] is not None:
            row["difference"] = compare([one.score() - other.score() for one, other in pairs])
            if not _draws_data(study):
                row["difference_over_people"] = resample_people(pairs)
    return VariantRow(**row)


def _summarise_group(
    own: Sequence[Run], pairs: Sequence[tuple[Run, Run]], low: float, high: float
) -> LengthGroup:
    def choose(run: Run) -> NDArray[np.bool_]:
        return (run.seconds > low) & (run.seconds <= high)

    scores, difference = _score_runs(own, pairs, lambda run: run.score(choose(run)))
    return LengthGroup(
        above_s=low if np.isfinite(low) else None,
        to_s=high if np.isfinite(high) else None,
        clips=float(np.mean([choose(run).sum() for run in own])),
        mean=float(np.mean(scores)) if scores else None,
        difference=difference,
    )


def _summarise_transfer(
    own: Sequence[Run], pairs: Sequence[tuple[Run, Run]], data: str
) -> TransferScore | None:
    scores, difference = _score_runs(own, pairs, lambda run: run.score_elsewhere(data))
    if not scores:
        return None
    return TransferScore(float(np.mean(scores)), measure_spread(scores), difference)


def _score_runs(
    own: Sequence[Run], pairs: Sequence[tuple[Run, Run]], score: Callable[[Run], float]
) -> tuple[list[float], Difference]:
    """Return the defined scores of runs, and the difference over the defined pairs."""
    scores = [value for run in own if np.isfinite(value := score(run))]
    both = [score(one) - score(other) for one, other in pairs]
    return scores, compare([value for value in both if np.isfinite(value)])


def _summarise_extractors(study: Study, variants: Sequence[Variant]) -> list[ExtractorRow]:
    rows: dict[str, ExtractorRow] = {}
    for variant in variants if study.frames is not None else ():
        folder = study.extractor_folder(variant, 0).parent
        paths = sorted(folder.glob(f"seed-*/{RUN}")) if variant.reads_affect else []
        found = [read_record(path, ExtractorRecord) for path in paths]
        if not found or folder.name in rows:
            continue
        scores: dict[str, list[float]] = defaultdict(list)
        for name, value in (item for record in found for item in record.validation.items()):
            if value is not None:
                scores[name].append(value)
        rows[folder.name] = ExtractorRow(
            name=variant.name,
            settings=dict(variant.extractor or {}),
            seeds=len(found),
            seconds=float(np.mean([record.seconds for record in found])),
            mean={name: float(np.mean(values)) for name, values in scores.items()},
            sd={name: measure_spread(values) for name, values in scores.items()},
        )
    return list(rows.values())


# Numbers ----------------------------------------------------------------------------------------


def compare(differences: Sequence[float]) -> Difference:
    """Return the mean of paired differences, one per seed, with Student's 95 % interval."""
    count = len(differences)
    if count == 0:
        return Difference()
    mean = float(np.mean(differences))
    if count == 1:
        return Difference(mean, seeds=1)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(differences))
    return Difference(mean, mean - half, mean + half, count)


def resample_people(pairs: Sequence[tuple[Run, Run]]) -> Bounds | None:
    """Return the 95 % interval of the mean difference over resampled people.

    Each resample is the same for all seeds. Without names, clips are resampled. Returns None
    without a pair, with fewer than `LEAST_PEOPLE`, if two runs scored different clips, or if
    resamples have no score.
    """
    runs = [run for pair in pairs for run in pair]
    if not runs:
        return None
    labels = runs[0].labels
    people = People(runs[0].arrays["people"].tolist())
    same = all(np.array_equal(run.labels, labels, equal_nan=True) for run in runs)
    if not same or people.count < LEAST_PEOPLE:
        return None

    def differ(weights: torch.Tensor | None) -> torch.Tensor:
        one, other = (
            torch.stack([pair[side].correlate(weights) for pair in pairs]).mean(0)
            for side in (0, 1)
        )
        return one - other

    found = people.mean_interval(differ)
    return Bounds(found.low, found.high) if np.isfinite(found.low) else None


def score_targets(
    outputs: NDArray, labels: NDArray, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return (..., K) Pearson correlations of N clips; NaN where labels do not vary.

    `outputs` and `labels` are (N, K), `weights` (..., N); None means 1 for each clip.
    """
    target = torch.from_numpy(labels).double()
    scores = pearson_scores(torch.from_numpy(outputs).double(), target, weights)
    return count_constant_as_zero(scores, target, weights)


def correlate_with_length(values: Array, seconds: Array) -> float:
    """Return the mean over columns of |correlation with clip length|; 0 if constant."""
    lengths = np.where(np.isnan(values), np.nan, seconds[:, None])
    return float(score_targets(np.nan_to_num(values), lengths).nan_to_num(0.0).abs().mean())


def find_length_edges(seconds: Array) -> Array:
    """Return the edges of the length groups; the outer ones are infinite.

    Inner edges are quantiles of one seed's clips; every group has at least `LEAST_GROUP`
    clips.
    """
    inner: list[float] = []
    below = 0
    for edge in np.unique(np.quantile(seconds, LENGTH_SHARES)):
        count = int((seconds <= edge).sum())
        if count - below >= LEAST_GROUP and len(seconds) - count >= LEAST_GROUP:
            inner.append(float(edge))
            below = count
    return np.array([-np.inf, *inner, np.inf])


def measure_spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation over the seeds; None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
