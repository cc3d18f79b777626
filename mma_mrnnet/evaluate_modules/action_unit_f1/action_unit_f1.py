"""F1 of each action unit over the rows that are annotated for it, over a whole split, and their mean."""

from collections.abc import Sequence

import datasets
import evaluate

from mma_mrnnet.metrics import by_target, f1_scores, split_of_rows, within_unit_interval
from mma_mrnnet.model.labels import PRESENT_PROBABILITY, is_present

INPUTS = """
Args:
    predictions: N rows of A probabilities of presence in [0, 1], or 0 and 1.
    references: N rows of A intensities in [0, 1], present from 0.4 on (2 of 5 on the FACS scale), or 0 and 1; NaN (or
        None) where not annotated.
    names: A names of the units; the scores then come under them.
    threshold: a unit is called present from this probability on; 0.5 unless given.

Returns:
    mean_f1: mean over the units with a positive row; NaN where none has one.
    f1: A numbers, or a dictionary by name; NaN for a unit without a positive row, of which F1 says nothing.
"""


class ActionUnitF1(evaluate.Metric):
    """Multi-label F1, a thin layer over `mma_mrnnet.metrics.f1_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[float]],
        names: Sequence[str] | None = None,
        threshold: float = PRESENT_PROBABILITY,
    ) -> dict:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1; got {threshold}")
        probability, intensity = split_of_rows(predictions, references)
        called = within_unit_interval(probability, "predictions") >= threshold
        present = is_present(within_unit_interval(intensity, "references"))
        scores = f1_scores(called, present, ~intensity.isnan())
        return {"mean_f1": float(scores.nanmean()), "f1": by_target(scores, names)}
