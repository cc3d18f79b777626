"""Scores of a split, worked out by hand, and what is said where a score is not defined."""

import json

import numpy as np
import pytest
import torch

from mma_mrnnet.metrics import (
    People,
    area_under_roc,
    check_unit_interval,
    class_f1_scores,
    class_recalls,
    concordance_scores,
    count_confusions,
    count_constant_as_zero,
    expression_calibration_error,
    f1_scores,
    macro_f1,
    mean_absolute_errors,
    mean_where_labels_vary,
    name_scores,
    parse_rows,
    pearson_scores,
    presence_calibration_error,
    rounded,
)
from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.model.losses import concordance, pearson

NAN = float("nan")


def column(*values):
    return torch.tensor(values)[:, None]


def test_pearson_by_hand():
    # x = 1 2 3, y = 1 3 2, both around 2: products sum to 1, squares to 2 each: 1 / 2.
    assert pearson_scores(column(1.0, 2.0, 3.0), column(1.0, 3.0, 2.0)).item() == pytest.approx(
        0.5, abs=1e-12
    )


def test_concordance_by_hand():
    # y = x + 1: variances and covariance 2/3, means 1 apart: 2 * 2/3 / (4/3 + 1) = 4 / 7.
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
    # One hit, two called, two positive: 2 * 1 / (2 + 2). The fourth row would give 2 / 3.
    assert f1_scores(predicted, present, annotated).tolist() == [0.5]


def test_f1_says_nothing_without_a_positive_row_and_zero_without_a_hit():
    annotated = torch.ones(2, 1, dtype=torch.bool)
    nothing, one = torch.zeros(2, 1, dtype=torch.bool), torch.tensor([[True], [False]])
    assert f1_scores(one, nothing, annotated).isnan().all()
    assert f1_scores(nothing, one, annotated).tolist() == [0.0]


def test_macro_f1_by_hand():
    predicted = torch.tensor([0, 0, 1, 5, 3])
    labels = torch.tensor([0, 1, 1, 0, -100])
    # Class 0: hit 1, called 2, positive 2: 1/2. Class 1: hit 1, called 1, positive 2: 2/3.
    assert macro_f1(predicted, labels) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_class_that_does_not_occur_counts_neither_as_0_nor_as_1_in_macro_f1():
    labels = torch.tensor([0, 0, 2, 2])  # nobody shows class 1
    assert macro_f1(labels, labels) == 1
    # One 2 is called a 1: F1 of 0 is 1, of 2 it is 2/3, and the called class is no class of the mean.
    assert macro_f1(torch.tensor([0, 0, 2, 1]), labels) == pytest.approx(5 / 6)


def test_macro_f1_without_a_label_is_nan():
    assert np.isnan(macro_f1(torch.tensor([1, 2]), torch.tensor([-100, -100])))


def test_area_under_roc_counts_ties_half():
    # Pairs (0.5, 0.5) tie, (0.5, 0.1) won, (0.9, 0.5) won, (0.9, 0.1) won: 3.5 of 4.
    assert (
        area_under_roc(torch.tensor([0.5, 0.9, 0.5, 0.1]), torch.tensor([True, True, False, False]))
        == 3.5 / 4
    )


def test_area_under_roc_with_one_side_empty_is_nan():
    assert np.isnan(area_under_roc(torch.tensor([0.1, 0.2]), torch.tensor([True, True])))


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


def test_a_constant_prediction_counts_as_0_in_the_mean_and_constant_labels_are_left_out():
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
    prediction, target = parse_rows([[0.1, 0.2], [0.3, NAN]], [[1, None], [NAN, NAN]])
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
        parse_rows(predictions, references)


@pytest.mark.parametrize("mark", [-1.0, 999.0])
def test_a_corpus_own_mark_of_no_label_is_refused_where_only_0_to_1_is_a_label(mark):
    values = torch.tensor([[0.0, NAN], [1.0, mark]])
    with pytest.raises(ValueError, match=r"references must lie in \[0, 1\].*row 1"):
        check_unit_interval(values, "references")
    assert check_unit_interval(values[:1], "references") is not None


@pytest.mark.parametrize("names", [["a"], ["a", "a"], "ab"])
def test_names_are_one_for_each_target(names):
    with pytest.raises(ValueError, match="names must be 2 different ones"):
        name_scores(torch.tensor([0.5, 0.25]), names)
    assert name_scores(torch.tensor([0.5, 0.25]), ["a", "b"]) == {"a": 0.5, "b": 0.25}
    assert name_scores(torch.tensor([0.5, 0.25]), None) == [0.5, 0.25]


def test_errors_by_hand():
    # Named right with .6, and wrong with .8: (.4 + .8) / 2; the third image has no label.
    probability = torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.9, 0.1]])
    assert expression_calibration_error(
        probability, torch.tensor([0, 1, NO_CLASS])
    ) == pytest.approx(0.6)
    # One unit at .7 is present, one at .1 is absent: .3 and .1; the third has no label.
    intensity = torch.tensor([[0.4, 0.39, NAN]])
    assert presence_calibration_error(torch.tensor([[0.7, 0.1, 0.5]]), intensity) == pytest.approx(
        0.2
    )


# Weights ---------------------------------------------------------------------------------------


def some_rows():
    rng = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 30, 3, generator=rng)
    target[torch.rand(30, 3, generator=rng) < 0.2] = NAN
    return prediction, target


def with_classes():
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 4, (2, 30), generator=rng)


WEIGHTED = {
    "pearson": lambda rows, weights: pearson_scores(*some_rows_at(rows), weights),
    "concordance": lambda rows, weights: concordance_scores(*some_rows_at(rows), weights),
    "absolute error": lambda rows, weights: mean_absolute_errors(*some_rows_at(rows), weights),
    "f1": lambda rows, weights: f1_scores(
        *(values > 0 for values in some_rows_at(rows)), ~some_rows_at(rows)[1].isnan(), weights
    ),
    "class f1": lambda rows, weights: class_f1_scores(*with_classes()[:, rows], 4, weights),
    "recall": lambda rows, weights: class_recalls(*with_classes()[:, rows], 4, weights),
    "roc": lambda rows, weights: area_under_roc(
        some_rows_at(rows)[0][:, 0].round(decimals=1), with_classes()[0, rows] > 1, weights
    ),
}


def some_rows_at(rows):
    return tuple(values[rows] for values in some_rows())


@pytest.mark.parametrize("score", WEIGHTED.values(), ids=WEIGHTED)
def test_a_row_of_weight_3_counts_as_three_rows_and_one_of_weight_0_as_none(score):
    counts = torch.arange(30) % 4
    repeated = torch.arange(30).repeat_interleave(counts)
    expected = score(repeated, None)
    torch.testing.assert_close(score(slice(None), counts.double()), expected, equal_nan=True)


@pytest.mark.parametrize("score", WEIGHTED.values(), ids=WEIGHTED)
def test_several_weightings_at_once_give_a_row_of_scores_each(score):
    weights = torch.stack([torch.ones(30), (torch.arange(30) % 4).double()])
    both = score(slice(None), weights)
    for row, own in zip(both, weights, strict=True):
        torch.testing.assert_close(row, score(slice(None), own), equal_nan=True)


def test_correlations_are_those_of_the_training_objectives():
    prediction, target = some_rows()
    wide = prediction.double(), target.double()
    torch.testing.assert_close(pearson_scores(prediction, target), pearson(*wide))
    torch.testing.assert_close(concordance_scores(prediction, target), concordance(*wide))


def test_a_small_spread_far_from_zero_is_no_constant():
    prediction = torch.tensor([[1000.0], [1000.001], [1000.002]], dtype=torch.float64)
    assert pearson_scores(prediction, column(1.0, 3.0, 2.0)).item() == pytest.approx(0.5, abs=1e-6)


def test_a_split_without_a_row_has_no_score():
    nothing = torch.zeros(0, 2)
    assert pearson_scores(nothing, nothing).isnan().tolist() == [True, True]
    assert np.isnan(mean_where_labels_vary(pearson_scores(nothing, nothing), nothing))


def test_a_resample_in_which_labels_do_not_vary_has_no_correlation():
    prediction, target = column(1.0, 2.0, 3.0), column(0.0, 0.0, 1.0)
    weights = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    assert pearson_scores(prediction, target, weights).isnan().flatten().tolist() == [True, False]


def test_only_a_constant_prediction_counts_as_0():
    target = torch.tensor([[1.0, 5.0], [2.0, 5.0]])
    scores = pearson_scores(torch.full((2, 2), 3.0), target)
    zero, undefined = count_constant_as_zero(scores, target).tolist()
    assert zero == 0.0
    assert np.isnan(undefined)


def test_confusions_have_labels_in_rows():
    counts = count_confusions(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, NO_CLASS]), 2)
    assert counts.tolist() == [[1, 1], [0, 1]]


def test_the_mean_of_recalls_is_the_balanced_accuracy():
    # Class 0: 1 of 2 right; class 1: 1 of 1; class 2 does not occur.
    recalls = class_recalls(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 3)
    assert recalls[:2].tolist() == [0.5, 1.0]
    assert recalls[2].isnan()


# People ----------------------------------------------------------------------------------------


def weighted_mean(values):
    return lambda weights: (
        values.double().mean(0, keepdim=True)
        if weights is None
        else (weights @ values.double() / weights.sum(-1))[:, None]
    )


def test_an_interval_over_people_is_that_of_the_mean_by_theory():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    (score,) = People([f"person {n}" for n in range(400)]).intervals(weighted_mean(values))
    error = 1.96 * values.std().item() / 20
    assert score.value == pytest.approx(values.mean().item(), abs=1e-6)
    assert score.low == pytest.approx(score.value - error, abs=0.15 * error)
    assert score.high == pytest.approx(score.value + error, abs=0.15 * error)


def test_more_rows_of_the_same_people_do_not_narrow_an_interval():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    subjects = [f"person {n}" for n in range(50)]
    once = People(subjects).intervals(weighted_mean(values))
    thrice = People(subjects * 3).intervals(weighted_mean(values.repeat(3)))
    assert thrice[0].low == pytest.approx(once[0].low)
    assert thrice[0].high == pytest.approx(once[0].high)


def test_the_limits_are_those_of_a_loop_over_resamples():
    prediction, target = some_rows()
    subjects = [f"person {n % 7}" for n in range(30)]
    number = np.array([n % 7 for n in range(30)])
    drawn = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), 1000)
    resampled = torch.stack(
        [
            pearson_scores(prediction[rows], target[rows])
            for rows in (np.repeat(np.arange(30), draw[number]) for draw in drawn)
        ]
    )
    low, high = resampled.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    found = People(subjects).intervals(lambda w: pearson_scores(prediction, target, w))
    assert [score.low for score in found] == pytest.approx(low.tolist(), abs=1e-9)
    assert [score.high for score in found] == pytest.approx(high.tolist(), abs=1e-9)


def test_one_person_gives_a_value_without_limits():
    (score,) = People(["a"] * 4).intervals(weighted_mean(torch.arange(4.0)))
    assert score.value == 1.5
    assert np.isnan([score.low, score.high]).all()


def test_rows_without_a_name_are_people_of_their_own():
    assert People(["", "", "anna", "anna"]).count == 3


def test_a_mean_leaves_out_what_is_not_defined_or_does_not_count():
    labels = torch.tensor([0, 0, 1, 1])
    people = People(["a", "b", "c", "d"])

    def recalls(weights):
        return class_recalls(torch.tensor([0, 1, 1, 1]), labels, 3, weights)

    assert people.mean_interval(recalls).value == 0.75  # of classes 0 and 1: (1/2 + 1) / 2
    assert people.mean_interval(recalls, torch.tensor([True, False, True])).value == 0.5
    assert np.isnan(people.mean_interval(recalls, torch.zeros(3, dtype=torch.bool)).value)
