"""Strict routing: columns of frames that no clip reached keep weight and optimiser state to the bit."""

import copy

import pytest
import torch
from torch import nn

from mma_mrnnet.training.updates import RoutedAdamW

FRAMES, HIDDEN, UNITS = 4, 3, 2
SETTINGS = {"lr": 0.1, "weight_decay": 0.01}
MOMENTS = ("exp_avg", "exp_avg_sq")


def layers(optimizer_of):
    torch.manual_seed(0)
    layer = nn.Linear(FRAMES * HIDDEN, UNITS).double()
    return layer, optimizer_of(layer)


def routed(layer):
    return RoutedAdamW(layer.parameters(), layer.weight, FRAMES, **SETTINGS)


def plain(layer):
    return torch.optim.AdamW(layer.parameters(), **SETTINGS)


def update(layer, optimizer, longest, seed):
    """One step on clips of which the longest has `longest` frames."""
    inputs = torch.randn(5, FRAMES, HIDDEN, generator=torch.Generator().manual_seed(seed)).double()
    inputs[:, longest:] = 0
    optimizer.zero_grad()
    layer(inputs.flatten(1)).square().sum().backward()
    optimizer.longest = longest
    optimizer.step()


def test_with_every_frame_routed_it_is_adamw():
    one, strict = layers(routed)
    other, ordinary = layers(plain)
    for seed in range(20):
        update(one, strict, FRAMES, seed)
        update(other, ordinary, FRAMES, seed)
    assert torch.allclose(one.weight, other.weight, rtol=1e-6)
    assert torch.allclose(one.bias, other.bias, rtol=1e-6)


def test_unrouted_columns_keep_weight_and_state_to_the_bit_and_adamw_would_move_them():
    one, strict = layers(routed)
    other, ordinary = layers(plain)
    for optimizer, layer in ((strict, one), (ordinary, other)):
        update(layer, optimizer, FRAMES, 0)
    kept = slice(2 * HIDDEN, None)
    before = [
        one.weight[:, kept].clone(),
        *(strict.state[one.weight][name][:, kept].clone() for name in MOMENTS),
    ]
    other_before = other.weight[:, kept].clone()
    for seed in range(1, 4):
        update(one, strict, 2, seed)
        update(other, ordinary, 2, seed)
    after = [one.weight[:, kept], *(strict.state[one.weight][name][:, kept] for name in MOMENTS)]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert not torch.equal(other.weight[:, kept], other_before)
    assert not torch.equal(one.weight[:, :HIDDEN], other_before[:, :HIDDEN])
    assert strict.state[one.weight]["step"].tolist() == [4, 4, 1, 1]


def test_a_column_first_routed_late_starts_like_a_first_step():
    """Adam's first step has the length of the learning rate; with the count of all steps it would be about 3 times."""
    layer, optimizer = layers(routed)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    for seed in range(30):
        update(layer, optimizer, 1, seed)
    before = layer.weight.clone()
    update(layer, optimizer, FRAMES, 99)
    moved = (layer.weight - before)[:, HIDDEN:].abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.1), rtol=1e-4)


def test_its_state_is_saved_and_loaded():
    one, strict = layers(routed)
    for seed, longest in enumerate((2, 4, 1, 3)):
        update(one, strict, longest, seed)
    other, loaded = layers(routed)
    other.load_state_dict(one.state_dict())
    loaded.load_state_dict(copy.deepcopy(strict.state_dict()))
    for layer, optimizer in ((one, strict), (other, loaded)):
        update(layer, optimizer, 3, 7)
    assert torch.equal(one.weight, other.weight)
    assert loaded.state[other.weight]["step"].tolist() == [5, 4, 3, 1]


def test_a_step_without_a_gradient_leaves_the_routed_weight_alone():
    layer, optimizer = layers(routed)
    before = layer.weight.clone()
    optimizer.step()
    assert torch.equal(layer.weight, before)
    assert pytest.approx(0.0) == sum(len(state) for state in optimizer.state.values())
