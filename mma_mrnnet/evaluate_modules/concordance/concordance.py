"""Concordance correlation (CCC) of each target over a whole split, and their mean: the score of valence and arousal."""

from collections.abc import Sequence

import datasets
import evaluate

from mma_mrnnet.metrics import by_target, concordance_scores, mean_where_labels_vary, split_of_rows

INPUTS = """
Args:
    predictions: N rows of K numbers.
    references: N rows of K numbers in the unit of the predictions, NaN (or None) where unlabelled.
    names: K names of the targets; the scores then come under them.

Returns:
    mean_ccc: mean over the targets whose labels vary; a prediction that does not vary there counts as 0. NaN where
        no labels vary.
    ccc: K numbers, or a dictionary by name; NaN where there are fewer than two labelled rows or one side is constant.
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
        numbers = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
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
        scores = concordance_scores(prediction, target)
        return {"mean_ccc": mean_where_labels_vary(scores, target), "ccc": by_target(scores, names)}
