"""F1 of each action unit over the annotated rows of a whole split, and their mean."""

from collections.abc import Sequence

import evaluate

from mma_mrnnet.metrics import (
    check_unit_interval,
    describe_metric,
    f1_scores,
    name_scores,
    parse_rows,
)
from mma_mrnnet.model.labels import PRESENT_PROBABILITY, is_present

INPUTS = """
Args:
    predictions: N rows of A probabilities of presence in [0, 1], or 0 and 1.
    references: N rows of A intensities in [0, 1], or 0 and 1; a unit is present from 0.4 on (2 of
        5 on the FACS scale); NaN or None where not annotated.
    names: A names of the units; `f1` is then a dictionary by name.
    threshold: a unit is predicted present from this probability on; default 0.5.

Returns:
    mean_f1: mean over the units with a positive row; NaN if none has one.
    f1: A numbers, or a dictionary by name; NaN for a unit without a positive row.
"""


class ActionUnitF1(evaluate.Metric):
    """Multi-label F1, a thin layer over `mma_mrnnet.metrics.f1_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        return describe_metric(__doc__, INPUTS)

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[float]],
        names: Sequence[str] | None = None,
        threshold: float = PRESENT_PROBABILITY,
    ) -> dict:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1; got {threshold}")
        probability, intensity = parse_rows(predictions, references)
        called = check_unit_interval(probability, "predictions") >= threshold
        present = is_present(check_unit_interval(intensity, "references"))
        scores = f1_scores(called, present, ~intensity.isnan())
        return {"mean_f1": float(scores.nanmean()), "f1": name_scores(scores, names)}
