"""From the runs of a study to its numbers: means, paired differences with intervals, results by clip length."""

import zipfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mma_mrnnet.analysis.ablation.planted import NOISE_FACTOR, with_noise
from mma_mrnnet.analysis.ablation.runs import PREDICTIONS
from mma_mrnnet.analysis.ablation.study import RUN, Study, read_settled
from mma_mrnnet.analysis.ablation.variants import FULL, Variant
from mma_mrnnet.metrics import mean_where_labels_vary, pearson_scores

Array = NDArray[np.float64]

LENGTH_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Clips by length: shares of the held-out clips between the groups; the ends are where padding would bias."""

LEAST_GROUP = 30
"""Clips of a group by length: of fewer a correlation says nothing."""

RESAMPLES = 1000

LEAST_PEOPLE = 20
"""Of an interval over people: of fewer drawn anew it would be far too narrow."""

NOISE = "noise"

STUDENT_T = (
    *(
        12.706,
        4.303,
        3.182,
        2.776,
        2.571,
        2.447,
        2.365,
        2.306,
        2.262,
        2.228,
        2.201,
        2.179,
        2.160,
        2.145,
        2.131,
    ),
    *(
        2.120,
        2.110,
        2.101,
        2.093,
        2.086,
        2.080,
        2.074,
        2.069,
        2.064,
        2.060,
        2.056,
        2.052,
        2.048,
        2.045,
        2.042,
    ),
)
"""97.5 % quantiles of Student's t with 1 to 30 degrees of freedom (any table); above, 2.042 is a little wide."""


class Run:
    """One finished run: its record, and what it said of the held-out clips and of other data.

    Args:
        folder: of the run.

    Raises:
        ValueError: a file of it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.record = read_settled(folder / RUN)
        try:
            with np.load(folder / PREDICTIONS, allow_pickle=False) as file:
                self.tables: dict[str, NDArray] = {name: file[name] for name in file.files}
        # What numpy raises on a damaged archive depends on where the damage is.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{folder / PREDICTIONS}: damaged ({error}); remove {folder} and run it again"
            ) from error
        self.seed: int = self.record["seed"]
        self.intensities: Array = self.tables["intensities"].astype(float)  # (N, K)
        self.labels: Array = self.tables["labels"].astype(float)  # (N, K)
        self.seconds: Array = self.tables["seconds"].astype(float)  # (N,)

    def score(self, chosen: NDArray[np.bool_] | None = None) -> float:
        """Mean Pearson over the targets, of all held-out clips or the chosen ones."""
        chosen = np.ones(len(self.labels), bool) if chosen is None else chosen
        return _mean_pearson(self.intensities[chosen], self.labels[chosen])

    def transfer_score(self, data: str) -> float | None:
        """Mean Pearson on other data; None where the run was not tried there."""
        if f"{data}|labels" not in self.tables:
            return None
        return _mean_pearson(self.tables[f"{data}|intensities"], self.tables[f"{data}|labels"])

    def pearson(self) -> Array:
        """(K,) of the held-out clips; NaN where it is not defined."""
        return pearson_scores(
            torch.from_numpy(self.intensities), torch.from_numpy(self.labels)
        ).numpy()

    def length_correlation(self) -> float:
        """Mean over the targets of the absolute correlation of output and clip length."""
        return _length_correlation(self.intensities, self.seconds)


def summarise(study: Study, variants: Sequence[Variant], left_out: dict[str, str]) -> dict:
    """All numbers of a study, as JSON can hold them.

    A difference is paired: the same seed has the same data and the same order of it on both sides. Its interval is
    Student's over the seeds. Simulated data are drawn anew for each seed, so that it covers data and training alike;
    a corpus in files stays the same, so there is a second interval, from clips drawn anew person by person.

    Args:
        study: the study.
        variants: those to report; all runs of theirs that are done count.
        left_out: {variant: why it has no runs}.

    Raises:
        ValueError: the full model has no run, or a file of a run is damaged.
    """
    runs = {variant.name: _runs(study, variant) for variant in variants}
    full = runs.get(FULL) or []
    if not full:
        raise ValueError(
            f"{study.folder}: no finished run of the full model; {left_out.get(FULL, 'run it first')}"
        )
    edges = _length_edges(full[0].seconds)
    rows = [_row(study, variant, runs, edges) for variant in variants if runs[variant.name]]
    if any(variant.question == "planted" for variant in variants):
        rows.append(_noise_row(full))
    return {
        "data": full[0].record["data"],
        "evaluated_on": full[0].record["evaluated_on"],
        "evaluated_clips": len(full[0].labels),
        "labels": full[0].record["labels"],
        "seeds": [run.seed for run in full],
        "data_differ_by_seed": _data_differ(study),
        "resampled": "people"
        if full[0].record["data"].get("people_apart")
        else "clips, as nobody knows the people",
        "settings": {"clips": full[0].record["settings"], "frames": _stage1(study)},
        "length_of_clips_and_labels": float(
            np.mean([_length_correlation(run.labels, run.seconds) for run in full])
        ),
        "variants": rows,
        "extractors": _extractor_rows(
            study, [variant for variant in variants if runs[variant.name]]
        ),
        "left_out": left_out,
        "training_hours": _hours(study, runs),
    }


def _hours(study: Study, runs: dict[str, list[Run]]) -> float:
    """Of all processes that trained, extractors included; of a run that was resumed its last part."""
    seconds = [run.record["seconds"] for found in runs.values() for run in found]
    extractors = study.folder.glob(f"extractors/*/seed-*/{RUN}")
    return (sum(seconds) + sum(read_settled(path)["seconds"] for path in extractors)) / 3600


def _runs(study: Study, variant: Variant) -> list[Run]:
    folders = (study.folder / "runs" / variant.name).glob(f"seed-*/{RUN}")
    return sorted((Run(path.parent) for path in folders), key=lambda run: run.seed)


def _data_differ(study: Study) -> bool:
    return study.base.data.startswith("simulated")


def _stage1(study: Study) -> dict | None:
    return (
        None if study.frames is None else {"data": study.frames.data, "epochs": study.frames.epochs}
    )


def _row(study: Study, variant: Variant, runs: dict[str, list[Run]], edges: Array) -> dict:
    own = runs[variant.name]
    pairs = _pairs(own, runs.get(variant.against, []))
    scores = [run.score() for run in own]
    row = {
        "name": variant.name,
        "question": variant.question,
        "what": variant.what,
        "against": None if variant.name == variant.against else variant.against,
        "seeds": [run.seed for run in own],
        "mean_pearson": scores,
        "mean": float(np.mean(scores)),
        "sd": _spread(scores),
        "seconds": float(np.mean([run.record["seconds"] for run in own])),
        "parameters": own[0].record["parameters_of_stage_2"],
        "pearson": dict(
            zip(
                own[0].record["labels"],
                np.mean([run.pearson() for run in own], 0).tolist(),
                strict=True,
            )
        ),
        "length_correlation": float(np.mean([run.length_correlation() for run in own])),
        "by_length": [],
        "transfer": {
            data: found
            for data in study.transfer
            if (found := _transfer(own, pairs, data)) is not None
        },
    }
    if variant.question == "transfer":  # has test clips of its own: no difference but elsewhere
        return row
    row["by_length"] = [_length_group(own, pairs, *bounds) for bounds in pairwise(edges)]
    if row["against"] is not None:
        row["difference"] = interval([one.score() - other.score() for one, other in pairs])
        if not _data_differ(study):
            row["difference_over_people"] = people_interval(pairs)
    return row


def _noise_row(full: Sequence[Run]) -> dict:
    """The full model with noise on its outputs: a difference whose size is known before it is looked for."""
    noisy = [_mean_pearson(with_noise(run.intensities, run.seed), run.labels) for run in full]
    clean = [run.score() for run in full]
    return {
        "name": NOISE,
        "question": "planted",
        "what": "the full model's outputs with noise",
        "against": FULL,
        "seeds": [run.seed for run in full],
        "mean_pearson": noisy,
        "mean": float(np.mean(noisy)),
        "sd": _spread(noisy),
        "difference": interval([one - other for one, other in zip(noisy, clean, strict=True)]),
        "expected_difference": (NOISE_FACTOR - 1) * float(np.mean(clean)),
        "by_length": [],
        "transfer": {},
    }


def _extractor_rows(study: Study, variants: Sequence[Variant]) -> list[dict]:
    """Validation scores of the extractors behind the variants, mean and spread over the seeds."""
    rows = {}
    for variant in variants if study.frames is not None else ():
        if variant.pixels:
            continue
        folder = study.extractor_folder(variant, 0).parent
        found = [read_settled(path) for path in sorted(folder.glob(f"seed-*/{RUN}"))]
        if not found:
            continue
        scores = {
            name: [
                record["validation"][name]
                for record in found
                if record["validation"].get(name) is not None
            ]
            for name in found[0]["validation"]
        }
        rows[folder.name] = rows.get(folder.name) or {
            "name": variant.name,
            "settings": variant.extractor or {},
            "seeds": len(found),
            "seconds": float(np.mean([record["seconds"] for record in found])),
            "mean": {name: float(np.mean(values)) for name, values in scores.items() if values},
            "sd": {name: _spread(values) for name, values in scores.items() if values},
        }
    return list(rows.values())


def _pairs(own: Sequence[Run], others: Sequence[Run]) -> list[tuple[Run, Run]]:
    by_seed = {run.seed: run for run in others}
    return [(run, by_seed[run.seed]) for run in own if run.seed in by_seed]


def _length_group(
    own: Sequence[Run], pairs: Sequence[tuple[Run, Run]], low: float, high: float
) -> dict:
    """Scores of the clips longer than `low` and up to `high` seconds."""

    def chosen(run: Run) -> NDArray[np.bool_]:
        return (run.seconds > low) & (run.seconds <= high)

    scores = [score for run in own if np.isfinite(score := run.score(chosen(run)))]
    both = [(one.score(chosen(one)), other.score(chosen(other))) for one, other in pairs]
    differences = [one - other for one, other in both if np.isfinite(one) and np.isfinite(other)]
    return {
        "above_s": low if np.isfinite(low) else None,
        "to_s": high if np.isfinite(high) else None,
        "clips": float(np.mean([chosen(run).sum() for run in own])),
        "mean": float(np.mean(scores)) if scores else None,
        "difference": interval(differences),
    }


def _transfer(own: Sequence[Run], pairs: Sequence[tuple[Run, Run]], data: str) -> dict | None:
    scores = [score for run in own if (score := run.transfer_score(data)) is not None]
    if not scores:
        return None
    both = [(one.transfer_score(data), other.transfer_score(data)) for one, other in pairs]
    differences = [one - other for one, other in both if one is not None and other is not None]
    return {
        "mean": float(np.mean(scores)),
        "sd": _spread(scores),
        "difference": interval(differences),
    }


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and 95 % interval of paired differences, one a seed.

    Returns:
        `mean`, `low`, `high`, `seeds`; None for bounds of fewer than two, and for the mean of none.
    """
    count = len(values)
    if count == 0:
        return {"mean": None, "low": None, "high": None, "seeds": 0}
    mean = float(np.mean(values))
    if count == 1:
        return {"mean": mean, "low": None, "high": None, "seeds": 1}
    half = (
        STUDENT_T[min(count - 2, len(STUDENT_T) - 1)] * float(np.std(values, ddof=1)) / count**0.5
    )
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": count}


def people_interval(pairs: Sequence[tuple[Run, Run]]) -> dict[str, float] | None:
    """95 % interval of the mean difference over the seeds when people are drawn anew (clips, where nobody knows whose).

    Percentiles of 1000 bootstrap samples; all seeds see the same people in each.

    Returns:
        `low`, `high`; None without a pair, or where two runs were not scored on the same clips.
    """
    runs = [run for pair in pairs for run in pair]
    if not runs or any(
        not np.array_equal(run.labels, runs[0].labels, equal_nan=True) for run in runs
    ):
        return None
    _, person = np.unique(runs[0].tables["people"], return_inverse=True)
    count = person.max() + 1
    if count < LEAST_PEOPLE:
        return None
    draws = np.random.default_rng(0).multinomial(
        count, np.full(count, 1 / count), RESAMPLES
    )  # (R, people)
    weights = draws[:, person].astype(float)  # (R, N)
    differences = np.mean(
        [_weighted_scores(one, weights) - _weighted_scores(other, weights) for one, other in pairs],
        axis=0,
    )  # (R,)
    low, high = np.percentile(differences, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


def _weighted_scores(run: Run, weights: Array) -> Array:
    """(R,) mean Pearson of a run for each row of weights (R, N)."""
    known = ~np.isnan(run.labels)  # (N, K)
    x, y = np.where(known, run.intensities, 0.0), np.where(known, run.labels, 0.0)
    total = (weights @ known).clip(1e-12)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mean_x * mean_y
    variances = (weights @ (x * x) / total - mean_x**2) * (weights @ (y * y) / total - mean_y**2)
    varies = np.nanmax(np.where(known, y, -np.inf), 0) > np.nanmin(
        np.where(known, y, np.inf), 0
    )  # as `Run.score`
    return (covariance / np.sqrt(variances.clip(1e-24)))[:, varies].mean(1)


def _mean_pearson(prediction: NDArray, labels: NDArray) -> float:
    target = torch.from_numpy(labels).double()
    return mean_where_labels_vary(
        pearson_scores(torch.from_numpy(prediction).double(), target), target
    )


def _length_correlation(values: Array, seconds: Array) -> float:
    """Mean over the columns of |correlation with the clips' length|; a column that does not vary counts as 0."""
    lengths = torch.from_numpy(np.broadcast_to(seconds[:, None], values.shape).copy())
    lengths = torch.where(torch.from_numpy(np.isnan(values)), float("nan"), lengths)
    scores = pearson_scores(torch.from_numpy(np.nan_to_num(values)), lengths)
    return float(scores.nan_to_num(0.0).abs().mean())


def _length_edges(seconds: Array) -> Array:
    """Inner edges are shares of one seed's clips; the outer ones take in whatever another seed has."""
    inner: list[float] = []
    below = 0
    for edge in np.unique(np.quantile(seconds, LENGTH_SHARES)):
        count = int((seconds <= edge).sum())
        if count - below >= LEAST_GROUP and len(seconds) - count >= LEAST_GROUP:
            inner.append(float(edge))
            below = count
    return np.array([-np.inf, *inner, np.inf])


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
