"""Pearson correlation of each target over a whole split, and their mean."""

from collections.abc import Sequence

import evaluate

from mma_mrnnet.metrics import (
    describe_metric,
    mean_where_labels_vary,
    name_scores,
    parse_rows,
    pearson_scores,
)

INPUTS = """
Args:
    predictions: N rows of K numbers.
    references: N rows of K numbers, NaN or None where unlabelled.
    names: K names of the targets; `pearson` is then a dictionary by name.

Returns:
    mean_pearson: mean over the targets whose labels vary; a prediction that is constant there
        counts as 0. NaN if no labels vary.
    pearson: K numbers, or a dictionary by name; NaN if there are fewer than two labelled rows or
        one side is constant.
"""


class MeanPearson(evaluate.Metric):
    """Mean Pearson correlation, a thin layer over `mma_mrnnet.metrics.pearson_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        return describe_metric(__doc__, INPUTS)

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[float]],
        names: Sequence[str] | None = None,
    ) -> dict:
        prediction, target = parse_rows(predictions, references)
        scores = pearson_scores(prediction, target)
        return {
            "mean_pearson": mean_where_labels_vary(scores, target),
            "pearson": name_scores(scores, names),
        }
