import math

import pytest
import torch

from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.model.losses import (
    action_unit_loss,
    concordance,
    concordance_loss,
    consistency_loss,
    distribution_matching_loss,
    expression_loss,
    hard_co_annotation,
    pearson,
    pearson_loss,
    soft_co_annotation,
    soft_expression_loss,
    squared_error_loss,
    standardised_error_loss,
)
from mma_mrnnet.model.priors import action_unit_prior, prototypical_units

NAN = float("nan")


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


def test_concordance_of_a_shifted_copy_is_worked_out_by_hand():
    # x = 1, 2, 3; y = x + 1: var = cov = 2/3, difference of means 1: 2 (2/3) / (2/3 + 2/3 + 1) = 4/7.
    assert concordance(column(1, 2, 3), column(2, 3, 4)).item() == pytest.approx(4 / 7)


def test_pearson_ignores_scale_and_shift_and_concordance_does_not():
    x, y = column(1, 2, 4), column(1, 3, 3)
    assert pearson(5 * x + 2, y).item() == pytest.approx(pearson(x, y).item())
    assert concordance(5 * x + 2, y).item() < concordance(x, y).item()


def test_pearson_is_worked_out_by_hand():
    # x - mean = -1, 0, 1; y - mean = -2/3, 1/3, 1/3: cov sum 1, squares 2 and 2/3: 1 / sqrt(4/3).
    assert pearson(column(1, 2, 3), column(0, 1, 1)).item() == pytest.approx(1 / math.sqrt(4 / 3))


def test_unlabelled_rows_change_neither_correlation_nor_gradient():
    x = torch.tensor([[1.0], [2.0], [100.0], [4.0]], requires_grad=True)
    y = torch.tensor([[1.0], [3.0], [NAN], [3.0]])
    short = torch.tensor([[1.0], [2.0], [4.0]], requires_grad=True)
    for function in (pearson, concordance):
        assert torch.allclose(function(x, y), function(short, y[[0, 1, 3]]))
        (gradient,) = torch.autograd.grad(function(x, y).sum(), x)
        (expected,) = torch.autograd.grad(function(short, y[[0, 1, 3]]).sum(), short)
        assert gradient[2].item() == 0.0
        assert torch.allclose(gradient[[0, 1, 3]], expected, atol=1e-6)


@pytest.mark.parametrize("function", [pearson, concordance])
def test_a_constant_side_gives_zero_and_a_finite_gradient(function):
    x = torch.full((5, 1), 0.3, requires_grad=True)
    value = function(x, torch.rand(5, 1))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert abs(value.item()) < 1e-6
    assert gradient.isfinite().all()


def test_correlation_losses_leave_out_targets_without_two_labels():
    x = torch.rand(6, 3, dtype=torch.float64)
    y = torch.rand(6, 3, dtype=torch.float64)
    y[:, 2] = NAN
    y[0, 2] = 0.5  # one label is no correlation
    assert pearson_loss(x, y).item() == pytest.approx(1 - pearson(x[:, :2], y[:, :2]).mean().item())
    assert concordance_loss(x, y).item() == pytest.approx(
        1 - concordance(x[:, :2], y[:, :2]).mean().item()
    )


@pytest.mark.parametrize("loss", [pearson_loss, concordance_loss, squared_error_loss])
def test_a_batch_without_labels_costs_nothing_and_teaches_nothing(loss):
    x = torch.rand(4, 2, requires_grad=True)
    value = loss(x, torch.full((4, 2), NAN))
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_squared_error_is_the_mean_over_labelled_entries():
    # errors 1 and 3 with two entries unlabelled: (1 + 9) / 2 = 5.
    assert (
        squared_error_loss(
            torch.tensor([[1.0, 2.0], [4.0, 0.0]]), torch.tensor([[0.0, NAN], [1.0, NAN]])
        ).item()
        == 5
    )


def test_expression_loss_is_the_mean_over_labelled_rows():
    logits = torch.zeros(3, 7)
    logits[1, 2] = 1e4  # unlabelled: whatever it says has no weight
    # two labelled rows with even odds: log 7 each.
    assert expression_loss(logits, torch.tensor([0, -100, 6])).item() == pytest.approx(math.log(7))
    assert expression_loss(logits, torch.tensor([-100, -100, -100])).item() == 0.0


def test_action_unit_loss_weighs_rows_alike_however_many_units_are_annotated():
    logits = torch.zeros(3, 3, requires_grad=True)
    logits_away = torch.tensor([[0.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [1.0, NAN, NAN], [NAN, NAN, NAN]])
    # row 1: log 2; row 2: softplus(2); row 3 has no label and is no row: mean of two.
    expected = (math.log(2) + math.log1p(math.exp(2))) / 2
    value = action_unit_loss(logits + logits_away, targets)
    assert value.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.equal(gradient == 0, targets.isnan())


def test_action_units_annotated_nowhere_cost_nothing():
    assert action_unit_loss(torch.ones(2, 3), torch.full((2, 3), NAN)).item() == 0.0


def test_action_unit_loss_takes_weights_in_the_place_of_ones():
    logits = torch.zeros(2, 3, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, NAN], [1.0, 1.0, 1.0]])
    weights = torch.tensor([[1.0, 1.0, NAN], [1.0, 0.5, 0.5]])
    value = action_unit_loss(
        logits + torch.tensor([[0.0, 0.0, 9.0], [0.0, -2.0, 0.0]]), targets, weights
    )
    # row 1: log 2; row 2: (log 2 + softplus(2) / 2 + log(2) / 2) / 2.
    second = (1.5 * math.log(2) + 0.5 * math.log1p(math.exp(2))) / 2
    assert value.item() == pytest.approx((math.log(2) + second) / 2)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert gradient[0, 2].item() == 0.0
    assert torch.equal(
        action_unit_loss(logits, targets, torch.ones(2, 3)), action_unit_loss(logits, targets)
    )


def matching_inputs():
    expression = torch.randn(5, 7, dtype=torch.float64).float().requires_grad_()
    prior = action_unit_prior()
    expected = (expression.softmax(-1) @ prior).clamp(1e-6, 1 - 1e-6)
    return expression, expected.detach().logit().requires_grad_(), prior


def test_kl_matching_is_zero_with_zero_gradient_on_both_sides_where_units_match():
    expression, units, prior = matching_inputs()
    loss = distribution_matching_loss(expression, units, prior, "kl")
    gradients = torch.autograd.grad(loss, (expression, units))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


def test_kl_matching_is_worked_out_by_hand_for_one_unit():
    # one expression surely, prior 0.5, unit at probability 0.25: KL = .5 log 2 + .5 log(2/3).
    expression = torch.full((1, 7), -50.0)
    expression[0, 3] = 50.0
    prior = torch.zeros(7, 1)
    prior[3] = 0.5
    loss = distribution_matching_loss(expression, torch.tensor([[math.log(1 / 3)]]), prior, "kl")
    assert loss.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-5)


def test_bce_matching_holds_the_expression_fixed_and_pulls_units_to_it():
    expression, units, prior = matching_inputs()
    loss = distribution_matching_loss(expression, units, prior, "bce")
    expression_gradient, unit_gradient = torch.autograd.grad(
        loss, (expression, units), allow_unused=True
    )
    assert expression_gradient is None
    assert unit_gradient.abs().max() < 1e-6


def test_literal_matching_falls_as_units_go_to_zero():
    expression, units, prior = matching_inputs()
    here = distribution_matching_loss(expression, units, prior, "literal")
    lower = distribution_matching_loss(expression, units - 3, prior, "literal")
    assert 0 <= lower < here


@pytest.mark.parametrize("form", ["kl", "bce", "literal"])
def test_a_unit_without_a_prior_is_left_out_of_matching(form):
    expression, units, prior = matching_inputs()
    stranger = torch.randn(5, 1, requires_grad=True)
    table = action_unit_prior((*ACTION_UNITS, 99))
    wider = distribution_matching_loss(expression, torch.cat([units, stranger], 1), table, form)
    assert wider.item() == pytest.approx(
        distribution_matching_loss(expression, units, prior, form).item()
    )
    alone = distribution_matching_loss(expression, stranger, action_unit_prior((99,)), form)
    assert alone.item() == 0.0
    for loss in (wider, alone):
        (gradient,) = torch.autograd.grad(loss, stranger)
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_unknown_form_and_unequal_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="kl, bce or literal"):
        distribution_matching_loss(
            torch.zeros(1, 7), torch.zeros(1, 17), action_unit_prior(), "none"
        )
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        pearson(torch.zeros(2, 3), torch.zeros(2, 4))


# Co-annotation -----------------------------------------------------------------------------------------------------

NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE = range(7)


def annotation(present=(), absent=ACTION_UNITS, strengths=None):
    """(17,) labels: present units 1, absent ones 0, those of `strengths` as given, the others not annotated."""
    values = dict.fromkeys(absent, 0.0) | dict.fromkeys(present, 1.0) | (strengths or {})
    return torch.tensor([values.get(unit, NAN) for unit in ACTION_UNITS])


def soft(rows, labels=None, temperature=0.1):
    labels = torch.full((len(rows),), -100) if labels is None else torch.tensor(labels)
    return soft_co_annotation(labels, torch.stack(rows), action_unit_prior(), temperature)


def test_the_soft_expression_of_annotated_units_is_worked_out_by_hand():
    # AU12 and AU25 present, all others absent. Happiness: 2 / 2.51; fear has AU25 of 4 + 0.57 + 0.63 + 0.33 = 5.53,
    # surprise AU25 of 4 + 0.66; anger, disgust and sadness have nothing, and neutral 1 - 1.
    scores = [0, 0, 0, 1 / 5.53, 2 / 2.51, 0, 1 / 4.66]
    powers = [math.exp(score / 0.1) for score in scores]
    (row,) = soft([annotation(present=(12, 25))])
    assert row.tolist() == pytest.approx([power / sum(powers) for power in powers], rel=1e-4)
    assert row.argmax().item() == HAPPINESS


def test_only_annotated_units_count_in_a_soft_score():
    units = annotation(absent=(4, 7, 9, 15, 20), strengths={12: 0.4, 25: 1.0})
    # Happiness (0.4 + 1) of AU12 and 25, AU6 being unknown; fear AU25 of 4, 20 and 25; surprise AU25 of itself; anger
    # none of AU4 and 7, disgust none of AU4 and 9, sadness none of AU4 and 15; neutral 1 - 1.
    scores = [0, 0, 0, 1 / 3, 0.7, 0, 1.0]
    powers = [math.exp(score) for score in scores]
    assert soft([units], temperature=1.0)[0].tolist() == pytest.approx(
        [power / sum(powers) for power in powers]
    )


def test_a_face_without_active_units_is_softly_neutral():
    still, faint = soft([annotation(), annotation(strengths={7: 0.25})])
    # Neutral scores 1 against six zeros: e^10 to 1 each.
    assert still[NEUTRAL].item() == pytest.approx(math.exp(10) / (math.exp(10) + 6))
    # Neutral 0.75, and anger 0.25 of 3 + 0.26 + 0.52 + 0.29 = 4.07.
    assert (faint[NEUTRAL] / faint[ANGER]).item() == pytest.approx(
        math.exp(7.5 - 2.5 / 4.07), rel=1e-4
    )


def test_rows_with_an_expression_or_too_few_annotated_units_get_no_soft_expression():
    rows = [annotation(), annotation(absent=()), annotation(absent=(12,)), annotation()]
    targets = soft(rows, labels=[HAPPINESS, -100, -100, -100])
    # AU12 alone says nothing of anger, disgust, fear, sadness and surprise.
    assert targets.isnan().all(1).tolist() == [True, True, True, False]
    assert not targets[3].isnan().any()


def test_soft_expressions_cost_their_cross_entropy_and_nan_rows_nothing():
    logits = torch.zeros(3, 7, requires_grad=True)
    targets = torch.full((3, 7), NAN)
    targets[1] = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0])
    value = soft_expression_loss(
        logits + torch.tensor([[4.0], [0.0], [-9.0]]) * torch.eye(7)[0], targets
    )
    assert value.item() == pytest.approx(math.log(7))
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.equal(gradient[[0, 2]], torch.zeros(2, 7))
    # softmax less target: 1/7 - 1/2 twice, 1/7 five times.
    assert gradient[1].tolist() == pytest.approx([1 / 7 - 0.5] * 2 + [1 / 7] * 5)
    assert soft_expression_loss(logits, torch.full((3, 7), NAN)).item() == 0.0
    with pytest.raises(ValueError, match=r"\(3, 7\) and \(3, 6\)"):
        soft_expression_loss(logits, targets[:, :6])


def hard(rows, labels, action_units=ACTION_UNITS):
    prior, prototypes = action_unit_prior(action_units), prototypical_units(action_units)
    return hard_co_annotation(torch.tensor(labels), torch.stack(rows), prior, prototypes)


def test_an_expression_alone_gets_its_units_as_present_with_the_prior_as_weight():
    nothing = annotation(absent=())
    expressions, units, weights = hard([nothing, nothing, nothing], [HAPPINESS, NEUTRAL, -100])
    assert expressions.tolist() == [HAPPINESS, NEUTRAL, -100]
    happy = {
        unit: units[0, column].item()
        for column, unit in enumerate(ACTION_UNITS)
        if not units[0, column].isnan()
    }
    assert happy == {6: 1.0, 12: 1.0, 25: 1.0}
    assert [weights[0, ACTION_UNITS.index(unit)].item() for unit in (6, 12, 25)] == pytest.approx(
        [0.51, 1.0, 1.0]
    )
    assert units[1:].isnan().all()


def test_given_units_of_a_row_with_an_expression_stay_alone():
    _, units, weights = hard([annotation(absent=(), strengths={12: 0.25})], [HAPPINESS])
    assert units[0, ACTION_UNITS.index(12)].item() == 0.25
    assert units.isnan().sum().item() == 16
    assert torch.equal(weights, torch.ones(1, 17))


@pytest.mark.parametrize(
    ("present", "expression"),
    [
        ((12, 25), HAPPINESS),
        ((12,), None),  # AU25 is absent
        ((), None),  # neutral needs nothing, and is never made up
        ((4, 15, 1, 2, 25, 26), SURPRISE),  # sadness needs 2, surprise 4
        ((4, 7, 24, 15), ANGER),  # sadness needs 2, anger 3
        ((1, 2, 4, 20, 25, 26), None),  # fear and surprise need 4 each
        ((1, 2, 4, 20, 25, 26, 12), None),  # happiness, which needs 2, does not break that tie
    ],
)
def test_units_alone_get_the_expression_whose_prototypical_units_are_all_there(present, expression):
    expressions, units, _ = hard([annotation(present=present)], [-100])
    assert expressions.tolist() == [-100 if expression is None else expression]
    assert torch.equal(units[0], annotation(present=present))


def test_an_expression_is_not_made_up_from_units_that_are_not_annotated_or_too_weak():
    rows = [annotation(present=(12,), absent=()), annotation(strengths={12: 0.5, 25: 0.5})]
    rows.append(annotation(strengths={12: 0.49, 25: 1.0}))
    assert hard(rows, [-100] * 3)[0].tolist() == [-100, HAPPINESS, -100]
    assert hard([annotation(present=(12, 25))], [SADNESS])[0].tolist() == [SADNESS]


def test_an_expression_that_needs_a_unit_outside_the_list_is_never_made_up():
    # Without AU20 nobody can tell fear by AU1, 4 and 25; sadness needs AU4 and 15 alone.
    units = (1, 4, 15, 25)
    table = prototypical_units(units)
    assert table[SADNESS].tolist() == [False, True, True, False]
    assert not table[[NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SURPRISE]].any()
    rows = [torch.ones(4), torch.tensor([1.0, 1.0, 0.0, 1.0])]
    assert hard(rows, [-100, -100], units)[0].tolist() == [SADNESS, -100]


def test_co_annotation_leaves_the_given_labels_as_they_were():
    labels, units = (
        torch.tensor([HAPPINESS, -100]),
        torch.stack([annotation(absent=()), annotation(present=(12, 25))]),
    )
    before = labels.clone(), units.clone()
    hard_co_annotation(labels, units, action_unit_prior(), prototypical_units())
    soft_co_annotation(labels, units, action_unit_prior(), 0.1)
    assert torch.equal(labels, before[0])
    assert torch.equal(units.nan_to_num(-1), before[1].nan_to_num(-1))


# Graded units and copies -----------------------------------------------------------------------


def test_errors_of_units_are_measured_in_their_deviations_and_averaged_over_units():
    prediction = torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.4, 0.9]], requires_grad=True)
    target = torch.tensor([[0.3, NAN, NAN], [0.3, 0.3, NAN]])
    # Unit 1: errors .2 and .2 at deviation .1 -> 4; unit 2: .1 at .2 -> .25; unit 3: no label.
    loss = standardised_error_loss(prediction, target, torch.tensor([0.1, 0.2, 0.3]))
    assert loss.item() == pytest.approx((4 + 0.25) / 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient[0, 1] == 0
    assert (gradient[:, 2] == 0).all()


def test_errors_without_a_label_are_zero():
    nothing = torch.full((2, 3), NAN)
    assert standardised_error_loss(torch.rand(2, 3), nothing, torch.ones(3)).item() == 0


def test_copies_of_a_crop_are_compared_with_each_other_only():
    # Crop 0 moves valence by .2 and unit 1 by .4; crop 1 moves .3 of expression from 1 to 2.
    values = torch.tensor([[0.2, 0.0], [0.0, 0.0], [0.9, 0.9], [0.9, 0.9]])
    expressions = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.8, 0.2], [0.5, 0.5]])
    units = torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    loss = consistency_loss(values, expressions, units, torch.tensor([7, 7, 8, 8]))
    assert loss.item() == pytest.approx(0.04 / 4 + 0.16 / 6 + (0.09 + 0.09) / 2, rel=1e-5)


@pytest.mark.parametrize("copies", [[0, 0, 1], [0, 1, 1, 0]])
def test_copies_that_are_not_neighbours_are_refused(copies):
    rows = torch.rand(len(copies), 2)
    with pytest.raises(ValueError, match="neighbours"):
        consistency_loss(rows, rows, rows, torch.tensor(copies))
