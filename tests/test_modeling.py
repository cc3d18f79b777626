"""The exact properties of both networks: padding, masking, batches, chunks, saving."""

import json
import logging
import re

import pytest
import torch

from mma_mrnnet import MMAConfig, MMAModel, MMAMRNNetConfig, MMAMRNNetForIntensity
from mma_mrnnet.model.losses import pearson_loss
from mma_mrnnet.model.modeling_mma_mrnnet import IntensityOutput

NAN = float("nan")


def clip_batch(model, lengths=(4, 2, 1), frames=4):
    """Affect of clips with the given lengths, zeros behind, and the mask."""
    affect = torch.rand(len(lengths), frames, model.config.input_size)
    frame_mask = torch.arange(frames) < torch.tensor(lengths).unsqueeze(-1)
    return torch.where(frame_mask.unsqueeze(-1), affect, 0.0), frame_mask


@pytest.fixture
def feature_model():
    """A model that reads three features of very different scales."""
    config = MMAMRNNetConfig(
        feature_names=["AU12_r", "pose_Tz", "gaze_0_x"], num_frames=4, hidden_size=8, dense_size=6
    )
    model = MMAMRNNetForIntensity(config).eval()
    model.set_feature_scaling(torch.tensor([2.0, 600.5, 0.0]), torch.tensor([0.5, 20.0, 0.125]))
    return model


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_default_is_the_papers_size():
    config = MMAMRNNetConfig()
    assert config.mma_config.backbone_config.depths == (3, 4, 6, 3)
    assert (
        config.mma_config.image_size,
        config.hidden_size,
        config.dense_size,
        config.num_frames,
    ) == (
        112,
        128,
        32,
        30,
    )
    assert config.input_size == config.mma_config.affect_size == 2 + 7 + 17
    assert config.input_names[:3] == ["valence", "arousal", "neutral"]
    assert config.num_labels == 7


@pytest.mark.parametrize("kind", ["tiny_model", "feature_model"])
@pytest.mark.parametrize("junk", [7.0, -1e30, NAN, float("inf")])
def test_what_lies_in_padded_frames_changes_no_bit_of_outputs_or_gradients(kind, junk, request):
    model = request.getfixturevalue(kind)
    affect, frame_mask = clip_batch(model)
    labels = torch.rand(3, 7)
    model.train()
    seen = []
    for content in (affect, torch.where(frame_mask.unsqueeze(-1), affect, junk)):
        model.zero_grad()
        given = content.clone().requires_grad_()
        output = model(affect=given, frame_mask=frame_mask, labels=labels)
        output.loss.backward()
        assert torch.equal(given.grad[~frame_mask], torch.zeros_like(given.grad[~frame_mask]))
        seen.append((output.intensities, output.logits, {**gradients(model), "affect": given.grad}))
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    assert all(torch.equal(gradient, seen[1][2][name]) for name, gradient in seen[0][2].items())


def test_padded_pixels_are_never_looked_at(tiny_model):
    pixels = torch.rand(2, 4, 3, 32, 32)
    frame_mask = torch.tensor([[True, True, False, False], [True, False, False, False]])
    junk = torch.where(frame_mask[:, :, None, None, None], pixels, NAN)
    assert torch.equal(
        tiny_model(pixels, frame_mask=frame_mask).intensities,
        tiny_model(junk, frame_mask=frame_mask).intensities,
    )


def test_dense_columns_of_unrouted_frames_get_a_gradient_of_exactly_zero(tiny_model):
    affect, frame_mask = clip_batch(tiny_model, lengths=(2, 1, 2))
    tiny_model(affect=affect, frame_mask=frame_mask, labels=torch.rand(3, 7)).loss.backward()
    per_frame = tiny_model.dense.weight.grad.unflatten(1, (4, 8))  # (D, T, H)
    assert torch.equal(per_frame[:, 2:], torch.zeros_like(per_frame[:, 2:]))
    assert per_frame[:, :2].abs().sum() > 0


def test_clips_of_zero_one_and_all_frames_give_finite_numbers(tiny_model):
    affect, frame_mask = clip_batch(tiny_model, lengths=(0, 1, 4))
    output = tiny_model(affect=affect, frame_mask=frame_mask)
    assert output.intensities.isfinite().all()
    pixels = torch.rand(3, 4, 3, 32, 32)
    assert tiny_model(pixels, frame_mask=frame_mask).intensities.isfinite().all()
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    assert tiny_model(torch.rand(2, 4, 3, 32, 32), frame_mask=nothing).intensities.isfinite().all()


def test_batch_size_and_order_do_not_matter(tiny_model):
    affect, frame_mask = clip_batch(tiny_model, lengths=(4, 2, 1, 3))
    together = tiny_model(affect=affect, frame_mask=frame_mask).intensities
    order = torch.tensor([2, 0, 3, 1])
    shuffled = tiny_model(affect=affect[order], frame_mask=frame_mask[order]).intensities
    alone = torch.cat(
        [
            tiny_model(affect=affect[i : i + 1], frame_mask=frame_mask[i : i + 1]).intensities
            for i in range(4)
        ]
    )
    assert torch.allclose(together[order], shuffled, atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)


def test_extractor_chunks_do_not_matter(tiny_model):
    pixels, frame_mask = torch.rand(2, 4, 3, 32, 32), torch.ones(2, 4, dtype=torch.bool)
    whole = tiny_model.extract_affect(pixels, frame_mask, chunk_size=100)
    assert torch.allclose(
        whole, tiny_model.extract_affect(pixels, frame_mask, chunk_size=3), atol=1e-5
    )


def test_cached_affect_gives_what_pixels_give(tiny_model):
    pixels = torch.rand(2, 4, 3, 32, 32)
    frame_mask = torch.tensor([[True] * 4, [True, False, False, False]])
    from_pixels = tiny_model(pixels, frame_mask=frame_mask)
    cached = tiny_model.mma(pixels.flatten(0, 1)).affect.unflatten(0, (2, 4))
    from_affect = tiny_model(affect=cached, frame_mask=frame_mask)
    assert torch.allclose(from_pixels.intensities, from_affect.intensities, atol=1e-5)


def test_a_longer_t_with_the_old_dense_columns_copied_gives_the_same(tiny_model, tiny_mma_config):
    longer = MMAMRNNetForIntensity(
        MMAMRNNetConfig(mma_config=tiny_mma_config, num_frames=9, hidden_size=8, dense_size=6)
    ).eval()
    state = {
        name: value for name, value in tiny_model.state_dict().items() if name != "dense.weight"
    }
    longer.load_state_dict(state, strict=False)
    with torch.no_grad():
        longer.dense.weight[:, : 4 * 8] = tiny_model.dense.weight
    affect, frame_mask = clip_batch(tiny_model)
    wide, wide_mask = torch.zeros(3, 9, 26), torch.zeros(3, 9, dtype=torch.bool)
    wide[:, :4], wide_mask[:, :4] = affect, frame_mask
    assert torch.allclose(
        tiny_model(affect=affect, frame_mask=frame_mask).intensities,
        longer(affect=wide, frame_mask=wide_mask).intensities,
        atol=1e-5,
    )


def test_a_batch_trimmed_to_its_longest_clip_gives_the_same(tiny_model):
    affect, frame_mask = clip_batch(tiny_model, lengths=(2, 1))
    assert torch.allclose(
        tiny_model(affect=affect, frame_mask=frame_mask).intensities,
        tiny_model(affect=affect[:, :2], frame_mask=frame_mask[:, :2]).intensities,
        atol=1e-6,
    )


def test_saving_and_loading_changes_no_bit(tiny_model, tmp_path):
    tiny_model.set_calibration(torch.linspace(0.5, 2, 7), torch.linspace(-0.2, 0.2, 7))
    pixels = torch.rand(2, 4, 3, 32, 32)
    before = tiny_model(pixels).intensities
    tiny_model.save_pretrained(tmp_path)
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path)
    assert torch.equal(before, loaded(pixels).intensities)
    assert loaded.config.calibrated


def test_the_extractor_loads_out_of_a_stage_2_folder(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    extractor = MMAModel.from_pretrained(tmp_path)
    faces = torch.rand(3, 3, 32, 32)
    assert torch.equal(extractor(faces).affect, tiny_model.mma(faces).affect)


def test_stage_2_starts_from_a_stage_1_folder_with_any_named_targets(tiny_mma, tmp_path):
    tiny_mma.save_pretrained(tmp_path)
    model = MMAMRNNetForIntensity.from_mma_pretrained(
        tmp_path, num_frames=4, id2label={0: "joy", 1: "boredom"}
    )
    faces = torch.rand(3, 3, 32, 32)
    assert torch.equal(model.mma(faces).affect, tiny_mma(faces).affect)
    assert model.config.label_names == ["joy", "boredom"]
    assert model(faces.unsqueeze(0)).intensities.shape == (1, 2)


def test_another_number_of_targets_drops_the_old_calibration(tiny_model, tmp_path):
    tiny_model.set_calibration(torch.full((7,), 2.0), torch.full((7,), 0.1))
    tiny_model.save_pretrained(tmp_path)
    other = MMAMRNNetForIntensity.from_pretrained(
        tmp_path, num_labels=3, ignore_mismatched_sizes=True
    )
    assert torch.equal(other.calibration_scale, torch.ones(3))
    assert not other.config.calibrated


def test_a_frozen_extractor_stays_in_eval_mode_and_gets_no_gradient(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    for model in (tiny_model, MMAMRNNetForIntensity.from_pretrained(tmp_path)):
        model.train()
        assert not any(module.training for module in model.mma.modules())
        model(torch.rand(3, 4, 3, 32, 32), labels=torch.rand(3, 7)).loss.backward()
        assert all(parameter.grad is None for parameter in model.mma.parameters())
        assert model.rnn.gru.weight_ih_l0.grad.abs().sum() > 0


def test_an_unfrozen_extractor_learns(tiny_model):
    tiny_model.unfreeze_mma()
    tiny_model.train()
    tiny_model(torch.rand(3, 4, 3, 32, 32), labels=torch.rand(3, 7)).loss.backward()
    assert all(parameter.grad is not None for parameter in tiny_model.mma.parameters())


def test_training_on_resets_a_calibration_and_says_so_once(tiny_model, caplog):
    caplog.set_level(logging.WARNING, "mma_mrnnet")
    tiny_model.config.simulated_labels = True
    tiny_model.set_calibration(torch.full((7,), 2.0), torch.full((7,), 0.1))
    affect, labels = torch.rand(4, 3, 26), torch.rand(4, 7)
    tiny_model.eval()(affect=affect, labels=labels)
    with torch.no_grad():
        tiny_model.train()(affect=affect, labels=labels)
    assert tiny_model.config.calibrated  # a loss alone changes no weights
    for _ in range(2):
        tiny_model.train()(affect=affect, labels=labels).loss.backward()
    assert not tiny_model.config.calibrated
    assert torch.equal(tiny_model.calibration_scale, torch.ones(7))
    assert caplog.text.count("their calibration was reset") == 1
    assert "config.simulated_labels stays True" in caplog.text


def test_calibration_is_affine_on_the_output_and_stays_in_range(tiny_model):
    affect, frame_mask = clip_batch(tiny_model)
    plain = tiny_model(affect=affect, frame_mask=frame_mask).intensities
    tiny_model.set_calibration(torch.full((7,), 0.5), torch.full((7,), 0.25))
    assert torch.allclose(
        tiny_model(affect=affect, frame_mask=frame_mask).intensities, 0.5 * plain + 0.25
    )
    tiny_model.set_calibration(torch.full((7,), 9.0), torch.full((7,), -1.0))
    assert tiny_model(affect=affect, frame_mask=frame_mask).intensities.max() <= 1.0
    with pytest.raises(ValueError, match="positive"):
        tiny_model.set_calibration(torch.full((7,), -0.5), torch.zeros(7))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either pixel_values"),
        (
            {"affect": torch.zeros(1, 4, 26), "pixel_values": torch.zeros(1, 4, 3, 32, 32)},
            "either pixel_values",
        ),
        ({"affect": torch.zeros(1, 5, 26)}, "at most 4 frames"),
        ({"affect": torch.zeros(1, 4, 25)}, r"affect must be \(B, T, 26\) float"),
        (
            {"pixel_values": torch.zeros(4, 3, 32, 32)},
            r"pixel_values must be \(B, T, 3, 32, 32\) float",
        ),
        (
            {
                "affect": torch.zeros(1, 4, 26),
                "frame_mask": torch.tensor([[True, False, True, False]]),
            },
            "holes",
        ),
        (
            {"affect": torch.zeros(1, 4, 26), "frame_mask": torch.ones(1, 4)},
            "frame_mask must be bool",
        ),
        (
            {"affect": torch.zeros(1, 4, 26), "frame_mask": torch.ones(1, 3, dtype=torch.bool)},
            r"bool \(1, 4\)",
        ),
    ],
)
def test_bad_input_is_refused_in_words(tiny_model, inputs, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"sampling_fps": 0.0}, "sampling_fps"),
        ({"dropout": 1.0}, "dropout"),
        ({"intensity_loss": "rmse"}, "pearson, ccc, mse"),
        ({"output_activation": "tanh"}, "sigmoid, linear"),
    ],
)
def test_a_stage_2_config_out_of_range_is_refused(settings, message):
    with pytest.raises(Exception, match=message):
        MMAMRNNetConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action_units": [4, 1]}, "ascending"),
        ({"supervised_action_units": [3]}, "are not"),
        ({"distribution_matching": "js"}, "kl, bce, literal, off"),
        ({"expression_weight": -1.0}, "expression_weight"),
        ({"action_unit_concordance_weight": -1.0}, "action_unit_concordance_weight"),
        ({"action_unit_loss": "absolute"}, "cross_entropy, squared_error"),
        ({"action_unit_deviations": [0.1]}, "17 numbers above 0"),
        ({"action_unit_deviations": [0.0] * 17}, "17 numbers above 0"),
        ({"consistency_weight": -1.0}, "consistency_weight"),
        ({"distribution_matching_weight": -1.0}, "distribution_matching_weight"),
        ({"co_annotation": "both"}, "off, soft, hard"),
        ({"co_annotation_temperature": 0.0}, "above 0"),
        ({"co_annotation_weight": -0.5}, "co_annotation_weight"),
    ],
)
def test_a_stage_1_config_out_of_range_is_refused(settings, message):
    with pytest.raises(Exception, match=message):
        MMAConfig(**settings)


def test_units_that_no_label_reached_are_named(tiny_mma_config):
    tiny_mma_config.supervised_action_units = [
        unit for unit in tiny_mma_config.action_units if unit not in (11, 23)
    ]
    assert tiny_mma_config.prior_only_action_units == [11, 23]


def test_affect_is_values_then_probabilities_in_the_documented_order(tiny_mma):
    output = tiny_mma(torch.rand(5, 3, 32, 32))
    affect = output.affect
    assert affect.shape == (5, 26)
    assert torch.equal(affect[:, :2], output.valence_arousal)
    assert torch.allclose(affect[:, 2:9].sum(-1), torch.ones(5))
    assert torch.equal(affect[:, 9:], output.action_unit_logits.sigmoid())


def test_stage_1_losses_add_up_and_skip_what_is_unlabelled(tiny_mma):
    faces = torch.rand(4, 3, 32, 32)
    nothing = {
        "valence_arousal_labels": torch.full((4, 2), NAN),
        "expression_labels": torch.full((4,), -100),
        "action_unit_labels": torch.full((4, 17), NAN),
    }
    matching_only = tiny_mma(faces, **nothing).loss
    labels = {
        "valence_arousal_labels": torch.rand(4, 2),
        "expression_labels": torch.tensor([0, 1, 2, -100]),
        "action_unit_labels": torch.rand(4, 17).round(),
    }
    parts = [
        tiny_mma(faces, **{**nothing, name: value}).loss - matching_only
        for name, value in labels.items()
    ]
    assert torch.allclose(tiny_mma(faces, **labels).loss, sum(parts) + matching_only, atol=1e-5)
    tiny_mma.config.distribution_matching = "off"
    assert tiny_mma(faces, **nothing).loss.item() == 0.0


def co_annotated_batch():
    """A smile by its units, a smile by name, one with all labels, one with none."""
    units = torch.full((4, 17), NAN)
    units[[0, 2]] = 0.0
    units[0, [9, 15]] = 1.0  # AU12, AU25
    labels = {"expression_labels": torch.tensor([-100, 4, 1, -100]), "action_unit_labels": units}
    return torch.rand(4, 3, 32, 32), labels


def test_hard_co_annotation_is_the_loss_of_the_labels_that_it_makes_up(tiny_mma):
    faces, labels = co_annotated_batch()
    tiny_mma.config.co_annotation = "hard"
    loss = tiny_mma(faces, **labels).loss
    tiny_mma.config.co_annotation = "off"
    made_up = {name: value.clone() for name, value in labels.items()}
    made_up["expression_labels"][0] = 4
    made_up["action_unit_labels"][1, [4, 9, 15]] = 1.0  # AU6, AU12, AU25
    plain = tiny_mma(faces, **made_up).loss
    # Of row 1 the three units' losses weigh 0.51, 1 and 1 instead of 1 each, and three rows have units.
    losses = -tiny_mma(faces).action_unit_logits[1].sigmoid().log()[[4, 9, 15]]
    weighted = (0.51 * losses[0] + losses[1] + losses[2]) / 2.51
    assert torch.allclose(loss, plain + (weighted - losses.mean()) / 3, atol=1e-6)


def test_soft_co_annotation_adds_its_weighted_cross_entropy(tiny_mma):
    faces, labels = co_annotated_batch()
    plain = tiny_mma(faces, **labels).loss
    tiny_mma.config.co_annotation, tiny_mma.config.co_annotation_temperature = "soft", 1.0
    tiny_mma.config.co_annotation_weight = 0.25
    # Row 0 alone: fear 1 / 5.53, happiness 2 / 2.51, surprise 1 / 4.66, the others and neutral 0.
    target = torch.tensor([0, 0, 0, 1 / 5.53, 2 / 2.51, 0, 1 / 4.66]).softmax(0)
    extra = -(target * tiny_mma(faces).expression_logits[0].log_softmax(0)).sum()
    assert torch.allclose(tiny_mma(faces, **labels).loss, plain + 0.25 * extra, atol=1e-6)


def test_concordance_of_the_units_adds_its_weighted_loss_over_the_annotated_entries(tiny_mma):
    faces = torch.rand(3, 3, 32, 32)
    units = torch.full((3, 17), NAN)
    units[:, 2], units[:2, 9] = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.2, 0.8])
    plain = tiny_mma(faces, action_unit_labels=units).loss
    tiny_mma.config.action_unit_concordance_weight = 0.5
    given = tiny_mma(faces).action_unit_logits.sigmoid().double()

    def ccc(x, y):
        return (
            2
            * ((x - x.mean()) * (y - y.mean())).mean()
            / (x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2)
        )

    wanted = (
        1 - (ccc(given[:, 2], units[:, 2].double()) + ccc(given[:2, 9], units[:2, 9].double())) / 2
    )
    loss = tiny_mma(faces, action_unit_labels=units).loss
    assert (loss - plain).item() == pytest.approx(0.5 * wanted.item(), abs=1e-5)


def test_graded_units_are_compared_in_their_deviations(tiny_mma):
    faces, units = torch.rand(2, 3, 32, 32), torch.full((2, 17), NAN)
    units[:, 9] = torch.tensor([0.2, 0.8])
    of_matching = tiny_mma(faces, action_unit_labels=torch.full((2, 17), NAN)).loss
    tiny_mma.config.action_unit_loss = "squared_error"
    tiny_mma.config.action_unit_deviations = [0.25] * 17
    given = tiny_mma(faces).action_unit_logits.sigmoid()[:, 9]
    wanted = (((given - units[:, 9]) / 0.25) ** 2).mean()
    loss = tiny_mma(faces, action_unit_labels=units).loss
    assert (loss - of_matching).item() == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_co_annotation_lets_no_nan_into_a_gradient(tiny_mma, form):
    faces, labels = co_annotated_batch()
    tiny_mma.config.co_annotation = form
    for batch in (
        labels,
        {name: value[[3]] for name, value in labels.items()},
    ):  # the last has no label at all
        tiny_mma.zero_grad()
        tiny_mma(faces[: len(batch["expression_labels"])], **batch).loss.backward()
        assert all(gradient.isfinite().all() for gradient in gradients(tiny_mma).values())


def test_a_unit_without_prior_and_label_gets_a_gradient_of_exactly_zero(tiny_mma_config):
    tiny_mma_config.action_units = [12, 14, 25]
    model = MMAModel(tiny_mma_config)
    units = torch.tensor([[1.0, NAN, 0.0], [0.0, NAN, NAN]])
    model(torch.rand(2, 3, 32, 32), action_unit_labels=units).loss.backward()
    gradient = model.action_unit_head.weight.grad
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
    assert (gradient[[0, 2]].abs().sum(1) > 0).all()


def test_outputs_come_as_a_tuple_where_asked(tiny_model):
    affect, frame_mask = clip_batch(tiny_model)
    output = tiny_model(affect=affect, frame_mask=frame_mask, return_dict=False)
    assert isinstance(output, tuple)


def test_a_second_model_of_the_same_config_leaves_the_first_calibrated(tiny_model):
    tiny_model.set_calibration(torch.full((7,), 2.0), torch.zeros(7))
    second = MMAMRNNetForIntensity(tiny_model.config)
    assert tiny_model.config.calibrated
    assert not second.config.calibrated
    second.unfreeze_mma()
    assert tiny_model.config.freeze_mma


def test_new_weights_behind_an_old_calibration_drop_it(tiny_model, tmp_path):
    tiny_model.set_calibration(torch.full((7,), 2.0), torch.zeros(7))
    tiny_model.save_pretrained(tmp_path)
    longer = MMAMRNNetForIntensity.from_pretrained(
        tmp_path, num_frames=6, ignore_mismatched_sizes=True
    )
    assert not longer.config.calibrated
    assert torch.equal(longer.calibration_scale, torch.ones(7))


def test_stage_2_refuses_an_extractor_with_weights_missing(tiny_mma, tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_mma.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "backbone" not in name},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match="weights are missing"):
        MMAMRNNetForIntensity.from_mma_pretrained(tmp_path)


@pytest.mark.parametrize(
    "shape", [(), (4,), (2, 0, 26), (1, 0, 3, 32, 32), (1, 2, 3, 48, 48), (1, 2, 3, 32, 48)]
)
def test_odd_shapes_are_refused_in_words(tiny_model, shape):
    name = "pixel_values" if len(shape) == 5 else "affect"
    with pytest.raises(ValueError, match=f"{name} must be|at least one frame"):
        tiny_model(**{name: torch.zeros(shape)})


def test_bytes_are_refused_by_both_stages(tiny_model):
    with pytest.raises(ValueError, match="float"):
        tiny_model(torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="float"):
        tiny_model.mma(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


# Features in the extractor's place ---------------------------------------------------------------------------------


def test_features_reach_the_gru_scaled_and_padding_stays_0(feature_model):
    affect = torch.tensor([[[3.0, 600.5, 0.25], [2.0, 640.5, 0.0], [9.0, 9.0, 9.0]]])
    output = feature_model(affect=affect, frame_mask=torch.tensor([[True, True, False]]))
    assert output.affect.tolist() == [[[2.0, 0.0, 2.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]


def test_a_scaling_is_the_same_as_scaled_input(feature_model):
    affect, frame_mask = clip_batch(feature_model)
    scaled = (affect - feature_model.feature_mean) / feature_model.feature_scale
    before = feature_model(affect=affect, frame_mask=frame_mask).intensities
    feature_model.set_feature_scaling(torch.zeros(3), torch.ones(3))
    assert torch.equal(feature_model(affect=scaled, frame_mask=frame_mask).intensities, before)


def test_a_model_that_reads_features_holds_no_extractor_and_is_as_wide_as_they_are_many(
    feature_model,
):
    assert feature_model.mma is None
    assert feature_model.config.mma_config is None
    assert feature_model.config.input_size == 3
    assert feature_model.rnn.gru.input_size == 3
    assert not [name for name in feature_model.state_dict() if name.startswith("mma.")]
    assert (
        feature_model.train().training
    )  # the extractor that training would hold in eval mode is not missed


def test_a_model_with_an_extractor_has_the_weights_it_always_had(tiny_model):
    own = {name for name in tiny_model.state_dict() if not name.startswith("mma.")}
    assert own == {
        *("calibration_scale", "calibration_shift"),
        *(f"rnn.gru.{kind}_{side}h_l0" for kind in ("weight", "bias") for side in "ih"),
        *(f"{layer}.{kind}" for layer in ("dense", "output") for kind in ("weight", "bias")),
    }


def test_features_and_their_scaling_come_back_bit_by_bit(feature_model, tmp_path):
    feature_model.set_calibration(torch.linspace(0.5, 2, 7), torch.linspace(-0.2, 0.2, 7))
    affect, frame_mask = clip_batch(feature_model)
    before = feature_model(affect=affect, frame_mask=frame_mask).intensities
    feature_model.save_pretrained(tmp_path)
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path)
    assert torch.equal(before, loaded(affect=affect, frame_mask=frame_mask).intensities)
    assert loaded.config.feature_names == ["AU12_r", "pose_Tz", "gaze_0_x"]
    assert loaded.mma is None


def test_a_scaling_that_a_checkpoint_lacks_is_the_identity(feature_model, tmp_path):
    from safetensors.torch import load_file, save_file

    feature_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["feature_mean"], weights["feature_scale"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path)
    assert torch.equal(loaded.feature_mean, torch.zeros(3))
    assert torch.equal(loaded.feature_scale, torch.ones(3))


def test_the_scaling_stays_in_float32_where_the_weights_are_halved(feature_model, tmp_path):
    feature_model.save_pretrained(tmp_path)
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dense.weight.dtype == torch.bfloat16
    assert loaded.feature_mean.tolist() == [2.0, 600.5, 0.0]  # 600 in bfloat16
    assert loaded(affect=torch.tensor([[[2.0, 610.5, 0.0]]])).affect.tolist() == [[[0.0, 0.5, 0.0]]]


def test_an_identity_scaling_keeps_what_an_extractors_affect_gives(tiny_model):
    names = tiny_model.config.input_names
    config = MMAMRNNetConfig(feature_names=names, num_frames=4, hidden_size=8, dense_size=6)
    reader = MMAMRNNetForIntensity(config).eval()
    reader.load_state_dict(tiny_model.state_dict(), strict=False)
    affect, frame_mask = clip_batch(tiny_model)
    seen = [
        model(affect=affect, frame_mask=frame_mask).intensities for model in (tiny_model, reader)
    ]
    assert torch.equal(*seen)


@pytest.mark.parametrize(
    ("use", "message"),
    {
        "pixels": (lambda model: model(torch.zeros(1, 2, 3, 32, 32)), "reads 3 features a frame"),
        "extract": (
            lambda model: model.extract_affect(torch.zeros(1, 2, 3, 32, 32)),
            "holds no extractor",
        ),
        "freeze": (lambda model: model.freeze_mma(), "holds no extractor"),
        "unfreeze": (lambda model: model.unfreeze_mma(), "holds no extractor"),
        "affect of a face": (
            lambda model: model(affect=torch.zeros(1, 2, 26)),
            r"affect must be \(B, T, 3\) float",
        ),
        "shape": (
            lambda model: model.set_feature_scaling(torch.zeros(2), torch.ones(3)),
            r"scale and mean must be \(3,",
        ),
        "zero scale": (
            lambda model: model.set_feature_scaling(torch.zeros(3), torch.zeros(3)),
            "scale must be positive",
        ),
        "NaN": (
            lambda model: model.set_feature_scaling(torch.full((3,), NAN), torch.ones(3)),
            "both finite",
        ),
    }.values(),
)
def test_a_model_that_reads_features_refuses_what_it_cannot_do(feature_model, use, message):
    with pytest.raises(ValueError, match=message):
        use(feature_model)
    assert feature_model.feature_mean.tolist() == [2.0, 600.5, 0.0]


def test_a_model_with_an_extractor_has_no_scaling(tiny_model):
    with pytest.raises(ValueError, match=r"only a model that reads features .* has a scaling"):
        tiny_model.set_feature_scaling(torch.zeros(26), torch.ones(26))


def logit_model(tiny_config, **settings):
    torch.manual_seed(0)
    fields = {**tiny_config.to_dict(), "affect_transform": "logits", **settings}
    return MMAMRNNetForIntensity(MMAMRNNetConfig(**fields)).eval()


def test_the_gru_reads_scaled_logits_and_the_output_shows_probabilities(tiny_config):
    model = logit_model(tiny_config)
    model.set_feature_scaling(torch.full((26,), 0.5), torch.full((26,), 2.0))
    affect = torch.full((1, 2, 26), 0.5)
    affect[0, 0, :5] = torch.tensor([-0.8, 0.6, 0.0, 1.0, 0.75])
    read = []
    model.rnn.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    output = model(affect=affect, frame_mask=torch.tensor([[True, False]]))
    assert torch.equal(output.affect[0, 0], affect[0, 0])
    # Valence and arousal stay; ln(.001 / .999) = -6.9068, ln 3 = 1.0986; less 0.5, by 2.
    wanted = torch.tensor([-0.65, 0.05, -3.7034, 3.2034, 0.2993, *[-0.25] * 21])
    assert torch.allclose(read[0][0, 0], wanted, atol=1e-3)
    assert torch.equal(read[0][0, 1], torch.zeros(26))


@pytest.mark.parametrize("pooling", ["mask", "statistics"])
def test_logits_padding_and_saving_change_no_bit(tiny_config, tmp_path, pooling):
    model = logit_model(
        tiny_config, temporal_pooling=pooling, channels=["expressions", "action_units"]
    )
    model.set_feature_scaling(torch.randn(26), torch.rand(26) + 0.5)
    affect, frame_mask = clip_batch(model)
    before = model(affect=affect, frame_mask=frame_mask).intensities
    junk = torch.where(frame_mask.unsqueeze(-1), affect, NAN)
    assert torch.equal(model(affect=junk, frame_mask=frame_mask).intensities, before)
    model.save_pretrained(tmp_path)
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path)
    assert loaded.config.affect_transform == "logits"
    assert torch.equal(loaded(affect=affect, frame_mask=frame_mask).intensities, before)


def test_logits_are_for_affect_only():
    with pytest.raises(Exception, match="affect_transform is for an extractor's affect"):
        MMAMRNNetConfig(feature_names=["a"], affect_transform="logits")


def test_quiet_clips_count_only_in_the_second_part_of_the_loss(tiny_config):
    fields = {**tiny_config.to_dict(), "output_activation": "linear"}
    fields["id2label"] = {0: "joy", 1: "awe"}
    logits = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.5, 0.0], [2.0, -1.0]], requires_grad=True)
    labels = torch.tensor([[0.1, 0.0], [0.9, 0.5], [0.0, 0.0], [0.0, NAN]])
    losses = {}
    for weight in (None, 0.0, 2.0):
        model = MMAMRNNetForIntensity(MMAMRNNetConfig(**{**fields, "quiet_weight": weight}))
        losses[weight] = model.objective(IntensityOutput(logits=logits), labels)
    # Two clips are not quiet: their correlations are 1 and -1, so 1 - 0.
    over_all = pearson_loss(logits, labels).item()
    assert losses[None].item() == pytest.approx(over_all, abs=1e-6)
    assert losses[0.0].item() == pytest.approx(1.0, abs=1e-5)
    assert losses[2.0].item() == pytest.approx(1.0 + 2 * over_all, abs=1e-5)
    losses[0.0].backward()
    assert (logits.grad[2:] == 0).all()  # quiet clips


def test_a_checkpoint_that_reads_features_is_no_extractor_to_start_from(feature_model, tmp_path):
    feature_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a model that reads features holds no extractor"):
        MMAMRNNetForIntensity.from_mma_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feature_names": []}, "at least one feature"),
        ({"feature_names": ["AU12_r", ""]}, "none of them empty"),
        ({"feature_names": ["b", "a", "b"]}, r"each feature once; \['b'\]"),
        ({"feature_names": ["a"], "mma_config": MMAConfig()}, "mma_config or feature_names"),
    ],
)
def test_feature_names_that_make_no_input_are_refused(settings, message):
    with pytest.raises(Exception, match=message):
        MMAMRNNetConfig(**settings)


# A choice of channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "columns"),
    [
        (["valence_arousal"], [0, 1]),
        (["expressions"], [2, 3, 4, 5, 6, 7, 8]),
        (["valence_arousal", "action_units"], [0, 1, *range(9, 26)]),
        (["valence_arousal", "expressions", "action_units"], list(range(26))),
    ],
)
def test_the_gru_reads_the_chosen_channels_alone_and_the_output_holds_all(
    tiny_mma_config, channels, columns
):
    config = MMAMRNNetConfig(
        mma_config=tiny_mma_config,
        num_frames=4,
        hidden_size=8,
        dense_size=6,
        channels=tuple(channels),
    )
    assert (config.input_size, config.channel_columns, config.gru_input_size) == (
        26,
        columns,
        len(columns),
    )
    assert config.gru_input_names == [config.input_names[column] for column in columns]
    model = MMAMRNNetForIntensity(config).eval()
    assert model.rnn.gru.input_size == len(columns)
    affect, frame_mask = clip_batch(model)
    output = model(affect=affect, frame_mask=frame_mask)
    assert torch.equal(output.affect, affect)
    for column in range(26):
        changed = affect.clone()
        changed[..., column] = 0.987 if column in columns else NAN
        same = torch.equal(model(affect=changed, frame_mask=frame_mask).logits, output.logits)
        assert same == (column not in columns), column


def test_the_chosen_columns_are_what_a_reader_of_these_features_gets(tiny_mma_config):
    settings = {"num_frames": 4, "hidden_size": 8, "dense_size": 6}
    chosen = MMAMRNNetForIntensity(
        MMAMRNNetConfig(mma_config=tiny_mma_config, channels=["expressions"], **settings)
    )
    names = ["neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise"]
    assert chosen.config.gru_input_names == names
    reader = MMAMRNNetForIntensity(MMAMRNNetConfig(feature_names=names, **settings))
    reader.load_state_dict(chosen.state_dict(), strict=False)
    affect, frame_mask = clip_batch(chosen)
    read = reader.eval()(affect=affect[..., 2:9], frame_mask=frame_mask).logits
    assert torch.equal(chosen.eval()(affect=affect, frame_mask=frame_mask).logits, read)


def test_channels_follow_the_extractors_own_units(tiny_mma_config):
    tiny_mma_config.action_units = [12, 14]
    config = MMAMRNNetConfig(mma_config=tiny_mma_config, channels=["action_units"])
    assert (config.channel_columns, config.gru_input_names) == ([9, 10], ["AU12", "AU14"])


def test_pixels_reach_the_chosen_columns(tiny_mma_config):
    config = MMAMRNNetConfig(
        mma_config=tiny_mma_config, num_frames=4, hidden_size=8, channels=["action_units"]
    )
    model, pixels = MMAMRNNetForIntensity(config).eval(), torch.rand(1, 4, 3, 32, 32)
    output = model(pixels)
    assert output.affect.shape == (1, 4, 26)
    assert torch.equal(output.logits, model(affect=model.extract_affect(pixels)).logits)


@pytest.mark.parametrize(
    ("channels", "got"),
    [
        ([], "got []"),
        (["gaze"], "got ['gaze']"),
        (["expressions", "expressions"], "got ['expressions', 'expressions']"),
        (["action_units", "expressions"], "got ['action_units', 'expressions']"),
    ],
)
def test_channels_that_make_no_input_are_refused(channels, got):
    said = "channels must be one or more of valence_arousal, expressions, action_units, each once and in this order; "
    with pytest.raises(Exception, match=re.escape(said + got)):
        MMAMRNNetConfig(channels=channels)


def test_a_model_that_reads_features_has_no_channels_to_choose_from():
    with pytest.raises(
        Exception,
        match=r"by feature_names \(--features\) and leave channels out; got \['expressions'\]",
    ):
        MMAMRNNetConfig(feature_names=["a"], channels=["expressions"])
    config = MMAMRNNetConfig(
        feature_names=["a", "b"], channels=["valence_arousal", "expressions", "action_units"]
    )
    assert (config.channel_columns, config.gru_input_names) == ([0, 1], ["a", "b"])


def test_a_config_from_before_there_was_a_choice_reads_everything(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    old = json.loads((tmp_path / "config.json").read_text())
    for name in ("channels", "temporal_pooling", "affect_transform", "quiet_weight"):
        old.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(old))
    loaded = MMAMRNNetForIntensity.from_pretrained(tmp_path)
    assert (loaded.config.gru_input_size, loaded.config.temporal_pooling) == (26, "mask")
    affect, frame_mask = clip_batch(tiny_model)
    seen = [
        model(affect=affect, frame_mask=frame_mask).intensities for model in (tiny_model, loaded)
    ]
    assert torch.equal(*seen)
