"""Concordance correlation (CCC) of each target over a whole split, and their mean."""

from collections.abc import Sequence

import evaluate

from mma_mrnnet.metrics import (
    concordance_scores,
    describe_metric,
    mean_where_labels_vary,
    name_scores,
    parse_rows,
)

INPUTS = """
Args:
    predictions: N rows of K numbers.
    references: N rows of K numbers in the unit of the predictions, NaN or None where unlabelled.
    names: K names of the targets; `ccc` is then a dictionary by name.

Returns:
    mean_ccc: mean over the targets whose labels vary; a prediction that is constant there counts
        as 0. NaN if no labels vary.
    ccc: K numbers, or a dictionary by name; NaN if there are fewer than two labelled rows or one
        side is constant.
"""

CITATION = """
@article{lin1989concordance,
  title   = {A Concordance Correlation Coefficient to Evaluate Reproducibility},
  author  = {Lin, Lawrence I-Kuei},
  journal = {Biometrics},
  volume  = {45},
  number  = {1},
  pages   = {255--268},
  year    = {1989}
}
"""


class Concordance(evaluate.Metric):
    """Concordance correlation, a thin layer over `mma_mrnnet.metrics.concordance_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        return describe_metric(__doc__, INPUTS, CITATION)

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[float]],
        names: Sequence[str] | None = None,
    ) -> dict:
        prediction, target = parse_rows(predictions, references)
        scores = concordance_scores(prediction, target)
        return {
            "mean_ccc": mean_where_labels_vary(scores, target),
            "ccc": name_scores(scores, names),
        }
