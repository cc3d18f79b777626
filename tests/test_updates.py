"""Micro-batches give the gradients of the whole; strict routing keeps unrouted columns to the bit."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from mma_mrnnet import MMAConfig, MMAModel, MMAMRNNetConfig, MMAMRNNetForIntensity
from mma_mrnnet.training.updates import RoutedAdamW, backward

BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
STAGE_1 = SimpleNamespace(loss_names=("valence_arousal", "expression_logits", "action_unit_logits"))
STAGE_2 = SimpleNamespace(loss_names=("logits",))
NAN = float("nan")


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


def frames(dropout=0.0):
    """A small extractor and ten crops, unevenly labelled, in double precision."""
    torch.manual_seed(0)
    model = MMAModel(MMAConfig(backbone_config=BACKBONE, image_size=32, dropout=dropout)).double()
    batch = {
        "pixel_values": torch.rand(10, 3, 32, 32, dtype=torch.float64),
        "valence_arousal_labels": torch.rand(10, 2, dtype=torch.float64),
        "expression_labels": torch.tensor([0, -100, 2, 3, -100, -100, 6, -100, -100, 1]),
        "action_unit_labels": torch.rand(10, 17, dtype=torch.float64),
    }
    batch["valence_arousal_labels"][[1, 3, 8]] = NAN
    batch["action_unit_labels"][torch.rand(10, 17) < 0.6] = NAN
    return model, batch


def clips(loss, dropout=0.0):
    """A small stage 2 and ten clips of 1 to 4 frames, one target partly unlabelled, in double precision."""
    torch.manual_seed(0)
    mma = MMAConfig(backbone_config=BACKBONE, image_size=32)
    model = MMAMRNNetForIntensity(
        MMAMRNNetConfig(
            mma_config=mma,
            num_frames=4,
            hidden_size=8,
            dense_size=6,
            intensity_loss=loss,
            dropout=dropout,
        )
    ).double()
    batch = {
        "affect": torch.rand(10, 4, 26, dtype=torch.float64),
        "frame_mask": torch.arange(4) < torch.tensor([4, 3, 2, 1, 4, 4, 2, 3, 1, 4])[:, None],
        "labels": torch.rand(10, 7, dtype=torch.float64),
    }
    batch["labels"][3:6, 2] = NAN
    return model, batch


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def gradient_in_parts(accelerator, stage, model, batch, size):
    model.zero_grad()
    loss = backward(accelerator, stage, model, batch, size)
    return loss, gradient(model)


@pytest.mark.parametrize("size", [1, 3, 9])
@pytest.mark.parametrize("kind", ["mma", "pearson", "ccc", "mse"])
def test_micro_batches_of_any_size_give_the_gradient_of_the_whole_batch(accelerator, kind, size):
    stage, (model, batch) = (STAGE_1, frames()) if kind == "mma" else (STAGE_2, clips(kind))
    model.eval()  # batch norm's own statistics would be those of each micro-batch
    whole_loss, whole = gradient_in_parts(accelerator, stage, model, batch, 0)
    loss, parts = gradient_in_parts(accelerator, stage, model, batch, size)
    assert loss.item() == pytest.approx(whole_loss.item(), rel=1e-9)
    assert whole.norm() > 0
    assert (parts - whole).norm() / whole.norm() < 1e-9


def test_a_micro_batch_as_large_as_the_batch_is_the_plain_step(accelerator):
    model, batch = clips("pearson", dropout=0.5)
    model.train()
    results = []
    for size in (0, 10, 64):
        torch.manual_seed(5)
        results.append(gradient_in_parts(accelerator, STAGE_2, model, batch, size)[1])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("kind", ["mma", "pearson"])
def test_dropout_is_replayed(accelerator, kind):
    """The reference keeps the graph of every micro-batch, which needs no second pass and so no replay."""
    stage, (model, batch) = (STAGE_1, frames(0.5)) if kind == "mma" else (STAGE_2, clips(kind, 0.5))
    model.train()
    labels = {name: value for name, value in batch.items() if name.endswith("labels")}
    inputs = {name: value for name, value in batch.items() if name not in labels}
    torch.manual_seed(5)
    outputs = [
        model(**{name: value[first : first + 3] for name, value in inputs.items()})
        for first in range(0, 10, 3)
    ]
    names = stage.loss_names
    joined = type(outputs[0])(
        **{name: torch.cat([output[name] for output in outputs]) for name in names}
    )
    model.objective(joined, **labels).backward()
    wanted, after = gradient(model), torch.rand(1)
    torch.manual_seed(5)
    _, got = gradient_in_parts(accelerator, stage, model, batch, 3)
    assert (got - wanted).norm() / wanted.norm() < 1e-9
    assert torch.equal(torch.rand(1), after)  # the random stream goes on where one pass leaves it


def test_running_statistics_count_every_micro_batch_once(accelerator):
    model, batch = frames()
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for first in range(0, 10, 5):
        model(batch["pixel_values"][first : first + 5])
    wanted = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    gradient_in_parts(accelerator, STAGE_1, model, batch, 5)
    assert all(torch.equal(buffer, wanted[name]) for name, buffer in model.named_buffers())


def test_averaging_the_gradients_of_micro_batches_would_be_another_gradient(accelerator):
    """What plain accumulation does, so that the tests above are known to tell the two apart."""
    model, batch = clips("pearson")
    model.eval()
    _, whole = gradient_in_parts(accelerator, STAGE_2, model, batch, 0)
    model.zero_grad()
    for first in (0, 5):
        (
            model(**{name: value[first : first + 5] for name, value in batch.items()}).loss / 2
        ).backward()
    assert (gradient(model) - whole).norm() / whole.norm() > 0.05


# Strict routing --------------------------------------------------------------------------------

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
