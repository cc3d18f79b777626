"""Scores of a split, worked out by hand, and what is said where a score is not defined."""

import json

import numpy as np
import pytest
import torch

from mma_mrnnet.metrics import (
    area_under_roc,
    by_target,
    concordance_scores,
    f1_scores,
    macro_f1,
    mean_absolute_errors,
    mean_where_labels_vary,
    pearson_scores,
    rounded,
    split_of_rows,
    within_unit_interval,
)

NAN = float("nan")


def column(*values):
    return torch.tensor(values)[:, None]


def test_pearson_by_hand():
    # x = 1 2 3 around 2, y = 1 3 2 around 2: covariance sum 1*1 + 0 + 1*0 = 1, both squares sum to 2: 1 / 2.
    assert pearson_scores(column(1.0, 2.0, 3.0), column(1.0, 3.0, 2.0)).item() == pytest.approx(
        0.5, abs=1e-12
    )


def test_concordance_by_hand():
    # y = x + 1: variances 2/3, covariance 2/3, squared difference of means 1: 2 * 2/3 / (4/3 + 1) = 4 / 7.
    assert concordance_scores(column(1.0, 2.0, 3.0), column(2.0, 3.0, 4.0)).item() == pytest.approx(
        4 / 7, abs=1e-12
    )


def test_unlabelled_rows_are_left_out_column_by_column():
    prediction = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [9.0, -9.0]])
    target = torch.tensor([[1.0, 1.0], [3.0, 2.0], [2.0, 3.0], [NAN, 4.0]])
    scores = pearson_scores(prediction, target)
    assert scores[0].item() == pytest.approx(0.5, abs=1e-12)
    assert scores[1].item() == pytest.approx(
        np.corrcoef([1, 2, 3, -9], [1, 2, 3, 4])[0, 1], abs=1e-12
    )


@pytest.mark.parametrize("score", [pearson_scores, concordance_scores])
@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ((1.0, 2.0), (NAN, NAN)),
        ((1.0, 2.0), (NAN, 2.0)),
        ((1.0, 2.0), (3.0, 3.0)),
        ((2.0, 2.0), (1.0, 3.0)),
    ],
    ids=["no label", "one label", "constant label", "constant prediction"],
)
def test_a_correlation_that_is_not_defined_is_nan(score, prediction, target):
    assert score(column(*prediction), column(*target)).isnan().all()


def test_a_constant_side_is_seen_among_the_labelled_rows_alone():
    assert pearson_scores(column(2.0, 2.0, 7.0), column(1.0, 3.0, NAN)).isnan().all()


def test_mean_absolute_errors_over_the_labelled_rows():
    prediction = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    target = torch.tensor([[2.0, NAN], [5.0, NAN]])
    errors = mean_absolute_errors(prediction, target)
    assert errors[0].item() == 2.0  # (1 + 3) / 2
    assert errors[1].isnan()


def test_f1_counts_only_annotated_entries():
    predicted = torch.tensor([[True], [True], [False], [True]])
    present = torch.tensor([[True], [False], [True], [True]])
    annotated = torch.tensor([[True], [True], [True], [False]])
    # Annotated: one hit, two called, two positive: 2 * 1 / (2 + 2). The fourth row would make it 2 * 2 / (3 + 3).
    assert f1_scores(predicted, present, annotated).tolist() == [0.5]


def test_f1_says_nothing_without_a_positive_row_and_zero_without_a_hit():
    annotated = torch.ones(2, 1, dtype=torch.bool)
    nothing, one = torch.zeros(2, 1, dtype=torch.bool), torch.tensor([[True], [False]])
    assert f1_scores(one, nothing, annotated).isnan().all()
    assert f1_scores(nothing, one, annotated).tolist() == [0.0]


def test_macro_f1_by_hand():
    predicted = torch.tensor([0, 0, 1, 5, 3])
    labels = torch.tensor([0, 1, 1, 0, -100])
    # Class 0: hit 1, called 2, positive 2: 1/2. Class 1: hit 1, called 1, positive 2: 2/3. 5 never occurs as a label.
    assert macro_f1(predicted, labels) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_macro_f1_without_a_label_is_nan():
    assert np.isnan(macro_f1(torch.tensor([1, 2]), torch.tensor([-100, -100])))


def test_area_under_roc_counts_ties_half():
    # Pairs (0.5, 0.5) tie, (0.5, 0.1) won, (0.9, 0.5) won, (0.9, 0.1) won: 3.5 of 4.
    assert (
        area_under_roc(np.array([0.5, 0.9, 0.5, 0.1]), np.array([True, True, False, False]))
        == 3.5 / 4
    )


def test_area_under_roc_with_one_side_empty_is_nan():
    assert np.isnan(area_under_roc(np.array([0.1, 0.2]), np.array([True, True])))


def test_rounded_makes_strict_json():
    content = {
        1: torch.tensor([0.123456, NAN]),
        "numbers": (np.float64(2.000049), np.int64(3), float("inf"), True, None, "text"),
        "nested": [{"zero_d": torch.tensor(0.5)}],
    }
    result = rounded(content)
    assert result == {
        "1": [0.1235, None],
        "numbers": [2.0, 3, None, True, None, "text"],
        "nested": [{"zero_d": 0.5}],
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_rounding_never_turns_a_small_setting_into_another_one():
    assert rounded({"learning_rate": 3e-5, "weight_decay": 1e-6}) == {
        "learning_rate": 3e-5,
        "weight_decay": 1e-6,
    }
    assert rounded(-0.0123456) == -0.01235
    assert rounded(0.0) == 0.0


def test_a_prediction_that_does_not_vary_counts_as_0_in_the_mean_and_labels_that_do_not_are_left_out():
    target = torch.tensor([[1.0, 1.0, 5.0], [2.0, 2.0, 5.0], [3.0, 3.0, 5.0]])
    prediction = torch.tensor([[1.0, 7.0, 1.0], [2.0, 7.0, 2.0], [3.0, 7.0, 3.0]])
    scores = pearson_scores(prediction, target)
    assert scores.tolist() == [
        pytest.approx(1.0),
        pytest.approx(NAN, nan_ok=True),
        pytest.approx(NAN, nan_ok=True),
    ]
    assert mean_where_labels_vary(scores, target) == pytest.approx(0.5)  # (1 + 0) / 2
    assert np.isnan(mean_where_labels_vary(scores[2:], target[:, 2:]))


def test_rows_become_float64_tensors_with_nan_where_there_is_no_label():
    prediction, target = split_of_rows([[0.1, 0.2], [0.3, NAN]], [[1, None], [NAN, NAN]])
    assert prediction.dtype == target.dtype == torch.float64
    assert prediction[0].tolist() == [0.1, 0.2]
    assert target.isnan().tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "no rows"),
        ([[1.0]], [[1.0], [2.0]], "1 and 2 rows"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], r"of \[2, 3\] numbers"),
        ([[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0]], r"of \[1, 2\] numbers"),
        ([[1.0], [NAN]], [[1.0], [2.0]], "row 1 is NaN"),
        ([[1.0], [float("inf")]], [[1.0], [2.0]], "row 1 is NaN or infinite"),
        ([[1.0], [2.0]], [[1.0], [float("inf")]], "references must be finite.*row 1"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_by_name(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        split_of_rows(predictions, references)


@pytest.mark.parametrize("mark", [-1.0, 999.0])
def test_a_corpus_own_mark_of_no_label_is_refused_where_only_0_to_1_is_a_label(mark):
    values = torch.tensor([[0.0, NAN], [1.0, mark]])
    with pytest.raises(ValueError, match=r"references must lie in \[0, 1\].*row 1"):
        within_unit_interval(values, "references")
    assert within_unit_interval(values[:1], "references") is not None


@pytest.mark.parametrize("names", [["a"], ["a", "a"], "ab"])
def test_names_are_one_for_each_target(names):
    with pytest.raises(ValueError, match="names must be 2 different ones"):
        by_target(torch.tensor([0.5, 0.25]), names)
    assert by_target(torch.tensor([0.5, 0.25]), ["a", "b"]) == {"a": 0.5, "b": 0.25}
    assert by_target(torch.tensor([0.5, 0.25]), None) == [0.5, 0.25]
