"""Each frame's share of the outputs: it adds up, planted structure is found, and what it is not shows."""

import math

import pytest
import torch

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity
from mma_mrnnet.model.configuration_mma_mrnnet import TEMPORAL_POOLINGS

KINDS = {
    **{pooling: {"temporal_pooling": pooling} for pooling in TEMPORAL_POOLINGS},
    "channels": {"channels": ["valence_arousal", "action_units"]},
    "two layers, linear output": {"num_hidden_layers": 2, "output_activation": "linear"},
    "dropout": {"dropout": 0.5},
}
MASKED = [pooling for pooling in TEMPORAL_POOLINGS if pooling != "padded"]
LENGTHS = (4, 2, 1, 0)


def random_weights(model):
    """New weights, biases among them, large enough that gates of both kinds come up."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("mma."):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.dense.bias.copy_(torch.linspace(-2, 6, 6))  # so that never all gates are closed
    return model.eval()


@pytest.fixture
def model_of(tiny_config):
    def build(**settings):
        return random_weights(
            MMAMRNNetForIntensity(MMAMRNNetConfig(**{**tiny_config.to_dict(), **settings}))
        )

    return build


def clips(size=26):
    affect = torch.rand(len(LENGTHS), 4, size, generator=torch.Generator().manual_seed(1))
    return affect, torch.arange(4) < torch.tensor(LENGTHS)[:, None]


def assert_adds_up(model, **clip):
    moments, wanted = model.frame_contributions(**clip), model(**clip).logits
    assert torch.equal(moments.logits, wanted)
    whole = moments.constant + moments.contributions.sum(1)
    assert torch.allclose(whole, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moments.constant, wanted, atol=1e-2)  # frames do add something
    return moments


@pytest.mark.parametrize("kind", KINDS)
def test_constant_and_contributions_add_up_to_the_logits(model_of, kind):
    affect, frame_mask = clips()
    moments = assert_adds_up(model_of(**KINDS[kind]), affect=affect, frame_mask=frame_mask)
    assert moments.contributions.shape == (4, 4, 7)
    assert moments.constant.shape == (4, 7)


@pytest.mark.parametrize("pooling", MASKED)
def test_padded_frames_contribute_exactly_nothing_whatever_lies_there(model_of, pooling):
    model = model_of(temporal_pooling=pooling)
    affect, frame_mask = clips()
    junk = torch.where(frame_mask.unsqueeze(-1), affect, float("nan"))
    moments = model.frame_contributions(affect=junk, frame_mask=frame_mask)
    assert (moments.contributions[~frame_mask] == 0).all()
    assert (moments.contributions[0].abs().sum(1) > 0).tolist() == (
        [False] * 3 + [True] if pooling == "last" else [True] * 4
    )
    assert torch.allclose(
        moments.constant[3], moments.logits[3], atol=1e-5
    )  # of no frame the constant is all there is


def test_what_padding_adds_without_a_mask_is_shown_in_its_place(model_of):
    affect, frame_mask = clips()
    moments = model_of(temporal_pooling="padded").frame_contributions(
        affect=affect, frame_mask=frame_mask
    )
    assert (moments.contributions[~frame_mask].abs().sum(1) > 0).all()


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_a_batch_shorter_than_t_has_all_t_places(model_of, pooling):
    affect = torch.rand(2, 3, 26)
    moments = assert_adds_up(model_of(temporal_pooling=pooling), affect=affect)
    assert moments.contributions.shape == (2, 4, 7)


def test_it_adds_up_for_pixels(model_of):
    assert_adds_up(model_of(), pixel_values=torch.rand(2, 3, 3, 32, 32))


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_it_adds_up_for_features_on_their_own_scale(pooling):
    config = MMAMRNNetConfig(
        feature_names=["a", "b"],
        num_frames=4,
        hidden_size=8,
        dense_size=6,
        temporal_pooling=pooling,
    )
    model = random_weights(MMAMRNNetForIntensity(config))
    model.set_feature_scaling(torch.tensor([600.0, 0.0]), torch.tensor([2.0, 1.0]))
    affect, frame_mask = clips(2)
    assert_adds_up(model, affect=affect + torch.tensor([600.0, 0.0]), frame_mask=frame_mask)


def test_in_bfloat16_it_adds_up_to_bfloat16s_rounding(model_of):
    model = model_of().bfloat16()
    affect, frame_mask = clips()
    moments = model.frame_contributions(affect=affect, frame_mask=frame_mask)
    assert moments.contributions.dtype == torch.float32
    whole = moments.constant + moments.contributions.sum(1)
    assert torch.allclose(whole, moments.logits.float(), atol=0.1, rtol=2**-6)


def test_the_shipped_checkpoint_adds_up():
    from mma_mrnnet import load_pretrained

    model = load_pretrained()[0]
    affect = torch.rand(2, 30, 26)
    frame_mask = torch.arange(30) < torch.tensor([[30], [11]])
    assert_adds_up(model, affect=affect, frame_mask=frame_mask)


def test_a_model_in_training_mode_is_refused(model_of):
    affect, frame_mask = clips()
    with pytest.raises(
        ValueError, match=r"frame_contributions reads a finished model: call model\.eval\(\)"
    ):
        model_of().train().frame_contributions(affect=affect, frame_mask=frame_mask)


def test_quantised_weights_are_refused(model_of):
    model = model_of()
    model.dense.weight = torch.nn.Parameter(model.dense.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(
        ValueError, match="frame_contributions takes the dense layer's weights apart"
    ):
        model.frame_contributions(affect=torch.rand(1, 4, 26))


def test_what_forward_refuses_is_refused(model_of):
    with pytest.raises(ValueError, match="at most 4 frames"):
        model_of().frame_contributions(affect=torch.rand(1, 5, 26))
    with pytest.raises(ValueError, match="either pixel_values"):
        model_of().frame_contributions()


# Planted -----------------------------------------------------------------------------------------------------------


def plain(keep, **settings):
    """One feature, one hidden unit, T = 3, two dense units, one target: h_t = (1 - keep) tanh(x_t) + keep h_{t-1}."""
    config = MMAMRNNetConfig(
        feature_names=["x"], num_frames=3, hidden_size=1, dense_size=2, num_labels=1, **settings
    )
    model = MMAMRNNetForIntensity(config).eval()
    gate = math.log(keep / (1 - keep)) if keep else -200.0  # the update gate's bias
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.zero_()
        model.rnn.gru.weight_ih_l0[2] = 1.0  # torch's order: reset, update, new
        model.rnn.gru.bias_ih_l0[1] = gate
        model.dense.bias.copy_(torch.tensor([0.5, 1.0]))
        model.output.weight.copy_(torch.tensor([[3.0, 100.0]]))
        model.output.bias.fill_(0.1)
    return model


def hidden(*values):
    """(1, T, 1) features whose tanh are the values."""
    return torch.tensor(values).atanh().view(1, -1, 1)


def test_by_hand():
    model = plain(keep=0)
    with torch.no_grad():
        model.dense.weight.copy_(torch.tensor([[2.0, 4.0, 0.0], [-4.0, 0.0, 1.0]]))
    moments = model.frame_contributions(affect=hidden(0.5, -0.25, 0.0))
    # Units: 2 * 0.5 - 4 * 0.25 + 0.5 = 0.5, open; -4 * 0.5 + 1 = -1, closed, so that its weight of 100 counts nowhere.
    assert torch.allclose(
        moments.contributions.flatten(), torch.tensor([3.0, -3.0, 0.0]), atol=1e-5
    )
    assert torch.allclose(moments.constant, torch.tensor([[0.1 + 3 * 0.5]]), atol=1e-5)
    assert torch.allclose(moments.logits, torch.tensor([[1.6]]), atol=1e-5)


def test_the_one_frame_that_the_dense_layer_reads_is_found():
    model = plain(keep=0)
    with torch.no_grad():
        model.dense.weight.copy_(torch.tensor([[0.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    moments = model.frame_contributions(affect=hidden(0.9, 0.25, -0.9))
    # Unit 1 stands open by its bias alone: constant 0.1 + 3 * 0.5 + 100.
    assert torch.allclose(moments.contributions.flatten(), torch.tensor([0.0, 3.0, 0.0]), atol=1e-5)
    assert torch.allclose(moments.constant, torch.tensor([[101.6]]), atol=1e-4)


def test_the_frame_that_attention_looks_at_is_found():
    model = plain(keep=0, temporal_pooling="attention")
    with torch.no_grad():
        model.rnn.score.weight.fill_(
            math.log(3.0) / 0.5
        )  # score ln 3 for 0.5, 0 for 0: shares 3, 1, 1 of 5
        model.dense.weight.copy_(torch.tensor([[10.0], [-10.0]]))
    moments = model.frame_contributions(affect=hidden(0.0, 0.5, 0.0))
    # Pooled 0.3: unit 0 at 3.5, open; unit 1 at -2, closed.
    assert torch.allclose(moments.contributions.flatten(), torch.tensor([0.0, 9.0, 0.0]), atol=1e-4)
    assert torch.allclose(moments.logits, torch.tensor([[0.1 + 3 * 3.5]]), atol=1e-4)


def test_a_frame_that_later_ones_remember_contributes_through_them_too():
    # What the docstring warns of: only the first frame shows anything, and all three contribute.
    model = plain(keep=0.5)
    with torch.no_grad():
        model.dense.weight.copy_(torch.tensor([[4.0, 4.0, 4.0], [0.0, 0.0, 0.0]]))
    moments = model.frame_contributions(affect=hidden(0.8, 0.0, 0.0))
    assert torch.allclose(moments.contributions.flatten(), torch.tensor([4.8, 2.4, 1.2]), atol=1e-4)


def test_without_a_frame_the_output_changes_by_something_else_than_its_contribution(model_of):
    model = model_of()
    affect = torch.rand(1, 4, 26)
    moments = model.frame_contributions(affect=affect)
    without = model(affect=affect[:, [0, 2, 3]]).logits
    assert not torch.allclose(moments.logits - without, moments.contributions[:, 1], atol=1e-2)
