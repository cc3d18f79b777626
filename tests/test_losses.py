import math

import pytest
import torch

from mma_mrnnet.model.losses import (
    action_unit_loss,
    concordance,
    concordance_loss,
    distribution_matching_loss,
    expression_loss,
    pearson,
    pearson_loss,
    squared_error_loss,
)
from mma_mrnnet.model.priors import action_unit_prior

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
    assert concordance_loss(x, y).item() == pytest.approx(1 - concordance(x[:, :2], y[:, :2]).mean().item())


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
        squared_error_loss(torch.tensor([[1.0, 2.0], [4.0, 0.0]]), torch.tensor([[0.0, NAN], [1.0, NAN]])).item() == 5
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
    expression_gradient, unit_gradient = torch.autograd.grad(loss, (expression, units), allow_unused=True)
    assert expression_gradient is None
    assert unit_gradient.abs().max() < 1e-6


def test_literal_matching_falls_as_units_go_to_zero():
    expression, units, prior = matching_inputs()
    here = distribution_matching_loss(expression, units, prior, "literal")
    lower = distribution_matching_loss(expression, units - 3, prior, "literal")
    assert 0 <= lower < here


def test_an_unknown_form_and_unequal_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="kl, bce or literal"):
        distribution_matching_loss(torch.zeros(1, 7), torch.zeros(1, 17), action_unit_prior(), "none")
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        pearson(torch.zeros(2, 3), torch.zeros(2, 4))
