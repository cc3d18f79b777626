"""The GRU and what is read of its outputs, pooling by pooling, on numbers worked out by hand."""

import pytest
import torch

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity
from mma_mrnnet.model.configuration_mma_mrnnet import TEMPORAL_POOLINGS
from mma_mrnnet.model.masked_rnn import MaskedRNN

NAN, INF = float("nan"), float("inf")
SCORED = ("attention", "statistics")
MASKED = [pooling for pooling in TEMPORAL_POOLINGS if pooling != "padded"]

# Two hidden units of three clips of T = 4 frames: of 3 real ones, of 1, of none.
STATES = torch.tensor(
    [
        [[1.0, 10.0], [2.0, 20.0], [6.0, 0.0], [0.0, 0.0]],
        [[5.0, 7.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
    ]
)
MASK = torch.arange(4) < torch.tensor([[3], [1], [0]])


def pooled(pooling, states=STATES, frame_mask=MASK, score=None):
    rnn = MaskedRNN(5, 2, 1, 4, pooling)
    if score is not None:
        with torch.no_grad():
            rnn.score.weight.copy_(torch.tensor([score]))
    return rnn.pooled(states, frame_mask)


@pytest.fixture
def model_of(tiny_config):
    """A model with the pooling given, its weights those of any other as far as they fit."""

    def build(pooling, **settings):
        torch.manual_seed(0)
        config = MMAMRNNetConfig(
            **{**tiny_config.to_dict(), "temporal_pooling": pooling, **settings}
        )
        return MMAMRNNetForIntensity(config).eval()

    return build


def clips(lengths, frames=4):
    """Affect with content in the padding too, and the mask."""
    generator = torch.Generator().manual_seed(1)
    affect = torch.rand(len(lengths), frames, 26, generator=generator)
    return affect, torch.arange(frames) < torch.tensor(lengths)[:, None]


# By hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mask", "padded"])
def test_all_frames_stand_in_a_row(pooling):
    assert pooled(pooling).tolist()[0] == [1, 10, 2, 20, 6, 0, 0, 0]


def test_the_last_is_that_of_the_last_real_frame():
    assert pooled("last").tolist() == [[6, 0], [5, 7], [0, 0]]


def test_the_mean_is_over_the_real_frames():
    assert pooled("mean").tolist() == [[3, 10], [5, 7], [0, 0]]


def test_attention_without_a_preference_is_the_mean():
    assert torch.allclose(pooled("attention", score=[0.0, 0.0]), pooled("mean"))


def test_attention_weighs_frames_by_the_softmax_of_their_scores():
    # ln 2 times the first unit: 2, 4 and 64 shares of 70. (2 + 8 + 384) / 70 and (20 + 80) / 70.
    wanted = torch.tensor([[394 / 70, 100 / 70], [5.0, 7.0], [0.0, 0.0]])
    assert torch.allclose(pooled("attention", score=[0.693147, 0.0]), wanted, atol=1e-4)


def test_statistics_are_attention_mean_thirds_maximum_and_deviation():
    found = pooled("statistics", score=[0.0, 0.0]).unflatten(1, (6, 2))
    deviations = [(14 / 3) ** 0.5, (200 / 3) ** 0.5]  # of 1, 2, 6 and of 10, 20, 0
    wanted = [[3, 10], [3, 10], [1, 10], [6, 0], [6, 20], deviations]
    assert torch.allclose(found[0], torch.tensor(wanted), atol=1e-3)
    assert torch.allclose(found[1], torch.tensor([[5.0, 7.0]] * 5 + [[0.0, 0.0]]))
    assert torch.equal(found[2], torch.zeros(6, 2))


def test_thirds_are_of_the_real_frames():
    # Of 7 real frames 2 are a third: the means of 0 and 1, and of 5 and 6. A frame of T = 9 is 100.
    states = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 100, 100]).view(1, 9, 1)
    rnn = MaskedRNN(5, 1, 1, 9, "statistics")
    found = rnn.pooled(states, torch.arange(9).view(1, 9) < 7)[0].tolist()
    assert found[1:] == pytest.approx([3, 0.5, 5.5, 6, 2], abs=1e-4)


def test_the_maximum_is_that_of_negative_states_too_and_belongs_to_its_first_frame():
    states = torch.tensor([-3.0, -1.0, -1.0, 0.0]).view(1, 4, 1)
    rnn = MaskedRNN(5, 1, 1, 4, "statistics")
    parts = rnn.split_by_frame(states, torch.tensor([[True, True, True, False]]))
    assert parts[0, :, 4].tolist() == [0, -1, 0, 0]
    # Distances from the mean -5/3: 4/3, 2/3 and 2/3, so the deviation's parts are as 4 : 1 : 1.
    assert torch.allclose(
        parts[0, :, 5], (8 / 9) ** 0.5 * torch.tensor([4, 1, 1, 0]) / 6, atol=1e-4
    )


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_a_mask_that_is_shorter_than_t_means_the_same(pooling):
    score = [0.3, -0.1] if pooling in SCORED else None
    assert torch.equal(
        pooled(pooling, frame_mask=MASK[:, :3], score=score), pooled(pooling, score=score)
    )


@pytest.mark.parametrize(
    ("pooling", "size"),
    [
        *dict.fromkeys(["mask", "padded"], 32).items(),
        *dict.fromkeys(["last", "mean", "attention"], 8).items(),
        ("statistics", 48),
    ],
)
def test_the_dense_layer_is_as_wide_as_what_it_reads(model_of, pooling, size):
    model = model_of(pooling)
    assert model.dense.in_features == model.rnn.pooled_size == size
    assert ("rnn.score.weight" in model.state_dict()) == (pooling in SCORED)


# Padding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", MASKED)
@pytest.mark.parametrize("junk", [7.0, NAN, INF, -INF])
def test_what_lies_in_padded_frames_changes_no_bit_of_outputs_or_gradients(model_of, pooling, junk):
    model, labels = model_of(pooling).train(), torch.rand(4, 7)
    affect, frame_mask = clips((4, 2, 1, 0))
    seen = []
    for content in (affect, torch.where(frame_mask.unsqueeze(-1), affect, junk)):
        model.zero_grad()
        given = content.clone().requires_grad_()
        output = model(
            affect=given, frame_mask=frame_mask, labels=labels, output_hidden_states=True
        )
        output.loss.backward()
        gradients = [
            parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
        ]
        seen.append([output.logits, output.affect, *output.hidden_states, given.grad, *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    assert all(value.isfinite().all() for value in seen[0])
    assert len(seen[0]) == 4 + 8 + (pooling in SCORED)


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_clips_without_a_frame_give_finite_numbers(model_of, pooling):
    affect, frame_mask = clips((0, 0))
    output = model_of(pooling)(affect=affect, frame_mask=frame_mask, output_hidden_states=True)
    assert output.intensities.isfinite().all()
    if pooling != "padded":
        assert torch.equal(output.hidden_states[0], torch.zeros(2, 4, 8))
        assert torch.equal(output.intensities[0], output.intensities[1])


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_a_batch_padded_to_less_than_t_with_zeros_gives_the_same(model_of, pooling):
    model = model_of(pooling)
    affect, frame_mask = clips((2, 1))
    affect = torch.where(frame_mask.unsqueeze(-1), affect, 0.0)
    whole = model(affect=affect, frame_mask=frame_mask, output_hidden_states=True)
    short = model(affect=affect[:, :2], frame_mask=frame_mask[:, :2], output_hidden_states=True)
    assert torch.allclose(whole.intensities, short.intensities, atol=1e-6)
    assert whole.hidden_states[0].shape == short.hidden_states[0].shape == (2, 4, 8)


def test_without_a_mask_a_short_clip_differs_and_a_full_one_does_not(model_of):
    masked, unmasked = model_of("mask"), model_of("padded")
    unmasked.load_state_dict(masked.state_dict())
    affect, frame_mask = clips((4, 2))
    one, other = (
        model(affect=affect, frame_mask=frame_mask).logits for model in (masked, unmasked)
    )
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-4)


def test_without_a_mask_padding_is_read_as_frames(model_of):
    model = model_of("padded")
    affect, frame_mask = clips((2,))
    output = model(affect=affect, frame_mask=frame_mask, output_hidden_states=True)
    assert torch.equal(output.logits, model(affect=affect).logits)  # as if all four were frames
    assert torch.equal(output.affect, affect)
    assert (output.hidden_states[0][:, 2:] != 0).all()
    zeros = torch.where(frame_mask.unsqueeze(-1), affect, 0.0)
    assert not torch.equal(output.logits, model(affect=zeros, frame_mask=frame_mask).logits)


def test_dense_columns_of_padded_frames_learn_where_there_is_no_mask(model_of):
    affect, frame_mask = clips((2, 1, 2))
    moved = {}
    for pooling in ("mask", "padded"):
        model = model_of(pooling)
        model(affect=affect, frame_mask=frame_mask, labels=torch.rand(3, 7)).loss.backward()
        moved[pooling] = model.dense.weight.grad.unflatten(1, (4, 8)).abs().sum((0, 2)) > 0  # (T,)
    assert moved["mask"].tolist() == [True, True, False, False]
    assert moved["padded"].tolist() == [True, True, True, True]


def test_pixels_of_padded_frames_count_as_zeros_where_there_is_no_mask(model_of):
    model, pixels = model_of("padded"), torch.rand(1, 4, 3, 32, 32)
    frame_mask = torch.tensor([[True, True, False, False]])
    output = model(
        torch.where(frame_mask[..., None, None, None], pixels, NAN), frame_mask=frame_mask
    )
    assert torch.equal(output.affect[:, 2:], torch.zeros(1, 2, 26))
    assert torch.allclose(output.logits, model(affect=output.affect).logits, atol=1e-6)


def test_unmasked_features_are_scaled_and_their_padding_is_not():
    config = MMAMRNNetConfig(
        feature_names=["a"], num_frames=3, hidden_size=2, temporal_pooling="padded"
    )
    model = MMAMRNNetForIntensity(config)
    model.set_feature_scaling(torch.tensor([10.0]), torch.tensor([2.0]))
    output = model(affect=torch.tensor([[[14.0], [0.0]]]), frame_mask=torch.tensor([[True, False]]))
    assert output.affect.tolist() == [[[2.0], [0.0]]]  # 0, the mean, as it would be padded up to T


# Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_saving_and_loading_changes_no_bit(model_of, pooling, tmp_path):
    model = model_of(pooling, channels=["valence_arousal", "action_units"])
    affect, frame_mask = clips((4, 2, 0))
    before = model(affect=affect, frame_mask=frame_mask).intensities
    model.save_pretrained(tmp_path)
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path)
    assert (loaded.config.temporal_pooling, loaded.config.channels) == (
        pooling,
        ["valence_arousal", "action_units"],
    )
    assert torch.equal(loaded(affect=affect, frame_mask=frame_mask).intensities, before)


def test_another_pooling_is_refused():
    with pytest.raises(
        Exception,
        match="temporal_pooling must be one of mask, padded, last, mean, attention, statistics; got 'max'",
    ):
        MMAMRNNetConfig(temporal_pooling="max")
