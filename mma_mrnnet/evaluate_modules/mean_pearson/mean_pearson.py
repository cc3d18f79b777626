"""Pearson correlation of each target over a whole split, and their mean: the number that Hume-Reaction ranks by."""

from collections.abc import Sequence

import datasets
import evaluate

from mma_mrnnet.metrics import by_target, mean_where_labels_vary, pearson_scores, split_of_rows

INPUTS = """
Args:
    predictions: N rows of K numbers.
    references: N rows of K numbers, NaN (or None) where unlabelled.
    names: K names of the targets; the scores then come under them.

Returns:
    mean_pearson: mean over the targets whose labels vary; a prediction that does not vary there counts as 0. NaN
        where no labels vary.
    pearson: K numbers, or a dictionary by name; NaN where there are fewer than two labelled rows or one side is
        constant.
"""


class MeanPearson(evaluate.Metric):
    """Mean Pearson correlation, a thin layer over `mma_mrnnet.metrics.pearson_scores`."""

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
    ) -> dict:
        prediction, target = split_of_rows(predictions, references)
        scores = pearson_scores(prediction, target)
        return {
            "mean_pearson": mean_where_labels_vary(scores, target),
            "pearson": by_target(scores, names),
        }
