"""Frame by frame equals offline: the model's step, the live reader, running estimates and sliding windows."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from mma_mrnnet import (
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetVideoProcessor,
    load_pretrained,
    predict_video,
)
from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.faces.detection import Detection
from mma_mrnnet.prediction.streaming import LiveReader, running_intensities, sliding_windows
from mma_mrnnet.video.reading import read_frames
from mma_mrnnet.video.writing import write_video

KINDS = {
    **{
        pooling: {"temporal_pooling": pooling}
        for pooling in ("mask", "last", "mean", "attention", "statistics")
    },
    "channels": {"channels": ["valence_arousal", "action_units"]},
    "two layers, linear output": {"num_hidden_layers": 2, "output_activation": "linear"},
    "two layers, attention": {"num_hidden_layers": 2, "temporal_pooling": "attention"},
    "dropout": {"dropout": 0.5},
    "logits": {"affect_transform": "logits"},
}


def random_weights(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("mma."):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.dense.bias.copy_(torch.linspace(-2, 6, 6))  # so that never all gates are closed
        model.set_calibration(torch.linspace(0.5, 1.5, 7), torch.linspace(-0.2, 0.2, 7))
    return model.eval()


@pytest.fixture
def model_of(tiny_config):
    def build(**settings):
        return random_weights(
            MMAMRNNetForIntensity(MMAMRNNetConfig(**{**tiny_config.to_dict(), **settings}))
        )

    return build


@pytest.fixture
def model(model_of):
    return model_of(temporal_pooling="attention")


def offline(model, affect):
    """(K,) of the (L, A) affect of one clip."""
    with torch.inference_mode():
        return (
            model(affect=torch.as_tensor(np.asarray(affect, np.float32)).unsqueeze(0))
            .intensities[0]
            .numpy()
        )


# The model's step --------------------------------------------------------------------------------------------------


def assert_steps_equal_forward(model, affect):
    state = None
    for count in range(1, affect.shape[1] + 1):
        output = model.step(affect[:, count - 1], state)
        whole = model(affect=affect[:, :count])
        assert torch.allclose(output.logits, whole.logits, atol=1e-5, rtol=1e-5), count
        assert torch.allclose(output.intensities, whole.intensities, atol=1e-6), count
        state = output.state
        assert state.frames == count
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_after_every_frame_the_estimate_is_that_of_the_frames_so_far(model_of, kind):
    assert_steps_equal_forward(model_of(**KINDS[kind]), 3 * torch.randn(3, 4, 26))


@pytest.mark.parametrize("pooling", ["mask", "attention"])
def test_features_are_scaled_as_offline(pooling):
    config = MMAMRNNetConfig(
        feature_names=["a", "b"],
        num_frames=4,
        hidden_size=8,
        dense_size=6,
        temporal_pooling=pooling,
    )
    model = random_weights(MMAMRNNetForIntensity(config))
    model.set_feature_scaling(torch.tensor([600.0, 0.0]), torch.tensor([2.0, 1.0]))
    assert_steps_equal_forward(model, torch.randn(2, 4, 2) + torch.tensor([600.0, 0.0]))


def test_attention_scores_of_any_size_stay_finite(model):
    with torch.no_grad():
        model.rnn.score.weight.mul_(1e4)  # exp of such scores alone would overflow
    assert_steps_equal_forward(model, 3 * torch.randn(4, 4, 26))


def test_the_shipped_checkpoint_step_by_step():
    model = load_pretrained()[0]
    assert_steps_equal_forward(model, torch.rand(2, model.config.num_frames, 26))


def test_a_state_carries_no_gradient_and_is_left_as_it_was(model):
    first = model.step(torch.rand(2, 26)).state
    kept = [value.clone() for value in (first.hidden, first.outputs)]
    outputs = [model.step(torch.rand(2, 26), first) for _ in range(2)]
    now = (first.hidden, first.outputs)
    assert all(torch.equal(one, other) for one, other in zip(kept, now, strict=True))
    assert not any(value.requires_grad for value in (*now, outputs[0].intensities))
    assert outputs[0].state.outputs.shape == (2, 2, 8)
    assert first.frames == 1


def test_a_frame_after_the_last_place_is_refused(model):
    state = assert_steps_equal_forward(model, torch.rand(1, 4, 26))
    with pytest.raises(
        ValueError,
        match=r"at most 4 frames .* already holds 4; beyond these, give forward the latest",
    ):
        model.step(torch.rand(1, 26), state)


def test_padded_pooling_is_refused(model_of):
    with pytest.raises(ValueError, match="padded pooling cannot go frame by frame"):
        model_of(temporal_pooling="padded").step(torch.rand(1, 26))


@pytest.mark.parametrize(
    ("affect", "said"),
    [
        (torch.rand(26), r"affect must be \(B, 26\) float, one frame; got torch.float32 \(26,\)"),
        (torch.rand(1, 4, 26), r"got torch.float32 \(1, 4, 26\)"),
        (torch.rand(1, 25), r"got torch.float32 \(1, 25\)"),
        (torch.ones(1, 26, dtype=torch.int64), "got torch.int64"),
        (torch.full((1, 26), math.nan), "affect holds NaN: leave out frames without a face"),
    ],
)
def test_what_is_no_frame_is_refused(model, affect, said):
    with pytest.raises(ValueError, match=said):
        model.step(affect)


def test_a_state_of_other_streams_or_another_mode_is_refused(model, model_of):
    state = model.step(torch.rand(2, 26)).state
    with pytest.raises(ValueError, match=r"of 3 streams, hidden \(1, 3, 8\); got \(1, 2, 8\)"):
        model.step(torch.rand(3, 26), state)
    with pytest.raises(ValueError, match=r"hidden \(2, 2, 8\)"):
        model_of(num_hidden_layers=2).step(torch.rand(2, 26), state)
    with pytest.raises(ValueError, match=r"step reads a finished model: call model\.eval\(\)"):
        model.train().step(torch.rand(2, 26), state)


# Running estimates of cached affect --------------------------------------------------------------------------------

NO_FACE = np.full(26, np.nan, np.float32)


def cached(count, fps=2.0, faceless=()):
    """Times and affect of a clip; frames of the numbers given show no face."""
    affect = np.random.default_rng(0).random((count, 26), np.float32)
    affect[list(faceless)] = np.nan
    return np.arange(count) / fps, affect


@pytest.mark.parametrize("kind", [*KINDS, "padded"])
def test_running_estimates_are_those_of_the_last_t_frames(model_of, tiny_processor, kind):
    model = model_of(**KINDS.get(kind, {"temporal_pooling": kind}))
    times_s, affect = cached(12)
    table = running_intensities(times_s, affect, model, tiny_processor)
    assert table.columns.tolist() == ["time_s", "frames_in_window", *model.config.label_names]
    assert table["frames_in_window"].tolist() == [1, 2, 3] + [4] * 9
    wanted = [offline(model, affect[max(0, end - 4) : end]) for end in range(1, 13)]
    assert np.allclose(table[model.config.label_names], wanted, atol=1e-5)


def test_frames_without_a_face_are_left_out_and_the_window_goes_on(model, tiny_processor):
    times_s, affect = cached(14, faceless=(0, 2, 5, 6, 7, 8, 9))
    table = running_intensities(
        times_s, affect, model, tiny_processor
    )  # a window of 2 s: the last 4 frames
    assert table["frames_in_window"].tolist() == [0, 1, 1, 2, 3, 2, 2, 1, 0, 0, 1, 2, 3, 4]
    for end, row in enumerate(table[model.config.label_names].to_numpy(), 1):
        seen = [vector for vector in affect[max(0, end - 4) : end] if not np.isnan(vector).any()]
        assert np.allclose(
            row, offline(model, seen) if seen else np.nan, atol=1e-5, equal_nan=True
        ), end


def test_a_shorter_window_rests_on_fewer_frames(model, tiny_processor):
    times_s, affect = cached(6)
    table = running_intensities(times_s, affect, model, tiny_processor, window_s=1.0)
    assert table["frames_in_window"].tolist() == [1, 2, 2, 2, 2, 2]
    assert np.allclose(
        table[model.config.label_names].iloc[-1], offline(model, affect[-2:]), atol=1e-5
    )


def test_only_frames_that_are_due_are_used(model, tiny_processor):
    times_s, affect = cached(41, fps=10.0)
    thinned = running_intensities(times_s, affect, model, tiny_processor)
    pd.testing.assert_frame_equal(
        thinned,
        running_intensities(times_s[::5], affect[::5], model, tiny_processor),
        check_exact=False,
        atol=1e-6,
    )
    assert thinned["time_s"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]


def test_clips_are_resampled_where_the_processor_does_so(model):
    processor = MMAMRNNetVideoProcessor(num_frames=4, length_policy="resample")
    times_s, affect = cached(2)
    table = running_intensities(times_s, affect, model, processor)
    assert np.allclose(
        table[model.config.label_names].iloc[-1], offline(model, affect[[0, 0, 1, 1]]), atol=1e-5
    )


def test_clips_of_features_run_too(tiny_processor):
    config = MMAMRNNetConfig(feature_names=["a", "b"], num_frames=4, hidden_size=8, dense_size=6)
    model = random_weights(MMAMRNNetForIntensity(config))
    affect = np.random.default_rng(0).random((6, 2), np.float32)
    table = running_intensities(np.arange(6) / 2, affect, model, tiny_processor)
    assert np.allclose(table[config.label_names].iloc[-1], offline(model, affect[2:]), atol=1e-5)
    with pytest.raises(ValueError, match="reads tables of features and sees no images"):
        LiveReader(model, tiny_processor)


# Sliding windows ---------------------------------------------------------------------------------------------------


def test_each_window_is_the_offline_result_on_its_frames(model, tiny_processor):
    times_s, affect = cached(10, faceless=(4, 5, 6, 7))  # up to 4.5 s
    table = sliding_windows(times_s, affect, model, tiny_processor, window_s=1.5, hop_s=1.0)
    assert table.columns.tolist() == [
        "start_s",
        "end_s",
        "frames_with_face",
        *model.config.label_names,
    ]
    assert table["start_s"].tolist() == [0, 1, 2, 3, 4]
    assert table["end_s"].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert table["frames_with_face"].tolist() == [3, 2, 0, 1, 2]  # frames 0 1 2, 2 3, none, 8, 8 9
    rows = table[model.config.label_names].to_numpy()
    for row, seen in zip(rows, ([0, 1, 2], [2, 3], [], [8], [8, 9]), strict=True):
        assert np.allclose(
            row, offline(model, affect[seen]) if seen else np.nan, atol=1e-5, equal_nan=True
        )


def test_windows_go_on_until_one_reaches_the_last_frame(model, tiny_processor):
    def starts(count, window_s, hop_s=0.5, first=0):
        times_s, affect = cached(count)
        table = sliding_windows(
            times_s[first:], affect[first:], model, tiny_processor, window_s, hop_s
        )
        return table["start_s"].tolist()

    assert starts(4, 2.0) == [0]  # 0, 0.5, 1, 1.5 all lie in [0, 2)
    assert starts(5, 2.0) == [0, 0.5]  # 2 does not
    assert starts(1, 2.0) == [0]
    assert starts(0, 2.0) == []
    assert starts(9, 1.0, hop_s=2.0) == [0, 2, 4]
    assert starts(9, 2.0, first=5) == [2.5]  # the face came at 2.5 s


def test_hundreds_of_windows_are_read_in_parts(model, tiny_processor):
    times_s, affect = cached(150)
    table = sliding_windows(times_s, affect, model, tiny_processor, window_s=2.0, hop_s=0.5)
    running = running_intensities(times_s, affect, model, tiny_processor)[3:].reset_index(drop=True)
    names = model.config.label_names
    pd.testing.assert_frame_equal(table[names], running[names], check_exact=False, atol=1e-5)


def test_uneven_times_keep_the_latest_frames_of_a_window(model, tiny_processor):
    times_s = np.array([0.4, 0.5, 1.0, 1.5, 2.0, 2.3])  # five frames from 0.4 to 2.3
    affect = cached(6)[1]
    table = sliding_windows(times_s, affect, model, tiny_processor, window_s=2.0, hop_s=0.4)
    assert table["frames_with_face"].tolist() == [4]
    assert np.allclose(
        table[model.config.label_names].iloc[0], offline(model, affect[1:5]), atol=1e-5
    )


def test_the_shipped_checkpoints_default_windows():
    model, processor = load_pretrained()
    times_s, affect = cached(40)
    table = sliding_windows(times_s, affect)
    assert table["start_s"].tolist() == list(range(9))
    assert set(table["frames_with_face"]) == {24}
    assert np.allclose(
        table[model.config.label_names].iloc[3], offline(model, affect[6:30]), atol=1e-5
    )
    assert processor.num_frames / model.config.sampling_fps == 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"window_s": 3},
            "a window of 3 s holds 6 frames at the model's 2 a second, and it reads at most 4: .* 2$",
        ),
        ({"window_s": 0}, "window_s must be a positive number of seconds; got 0"),
        ({"window_s": math.nan}, "window_s must be a positive"),
        ({"hop_s": -1.0}, "hop_s must be a positive number of seconds; got -1.0"),
        (
            {"times_s": [0.0, math.nan, 1.0]},
            "times_s must be finite seconds since the clip's first frame, in order",
        ),
        ({"times_s": [0.0, 1.0, 0.5]}, "in order"),
        ({"times_s": [-1.0, 0.0, 0.5]}, "since the clip's first frame"),
        (
            {"times_s": [0.0, 1.0]},
            r"times_s must be \(N,\) and affect \(N, 26\); got \(2,\) and \(3, 26\)",
        ),
        ({"affect": np.full((3, 26), np.inf)}, "affect holds infinite numbers"),
        ({"processor": None}, "give model and processor together"),
    ],
)
def test_what_is_no_clip_or_window_is_refused(model, tiny_processor, change, said):
    times_s, affect = cached(3)
    settings = {
        "times_s": times_s, "affect": affect, "model": model, "processor": tiny_processor, "window_s": 2.0
    }  # fmt: skip
    with pytest.raises(ValueError, match=said):
        sliding_windows(**{**settings, **change})


def test_a_stage_1_model_is_refused(tiny_mma, tiny_processor):
    times_s, affect = cached(3)
    with pytest.raises(ValueError, match="a stage-1 model"):
        sliding_windows(times_s, affect, tiny_mma, tiny_processor)
    with pytest.raises(ValueError, match="a stage-1 model"):
        LiveReader(tiny_mma, tiny_processor)


# The live reader ---------------------------------------------------------------------------------------------------

LANDMARKS = np.array([[12.0, 12.0], [20.0, 12.0], [16.0, 17.0], [13.0, 21.0], [19.0, 21.0]])


def detector(image):
    """A face wherever an image is not black; the true detector is tested elsewhere and below."""
    return [Detection((8.0, 6.0, 16.0, 20.0), LANDMARKS, 0.9)] if image.any() else []


def images(count, faceless=()):
    noise = np.random.default_rng(0).integers(1, 256, (count, 32, 32, 3), dtype=np.uint8)
    noise[list(faceless)] = 0
    return noise


def live(model, processor, times_s, faceless=(), **settings):
    reader = LiveReader(model, processor, detector=detector, **settings)
    return reader, [
        reader.add(image, time_s)
        for image, time_s in zip(images(len(times_s), faceless), times_s, strict=True)
    ]


def values(estimate):
    return np.array(list(estimate.intensities.values()), np.float32)


def affect_in(estimates):
    return [list(estimate.affect.values()) for estimate in estimates if estimate.affect is not None]


@pytest.mark.parametrize("pooling", ["mask", "attention", "padded"])
def test_a_stream_longer_than_the_network_reads_slides(model_of, tiny_processor, pooling):
    model = model_of(temporal_pooling=pooling)
    _, estimates = live(model, tiny_processor, np.arange(12) / 2)  # T = 4, three times as long
    seen = affect_in(estimates)
    assert len(seen) == 12
    for count, estimate in enumerate(estimates, 1):
        assert np.allclose(
            values(estimate), offline(model, seen[max(0, count - 4) : count]), atol=1e-5
        ), count
        assert estimate.frames_in_window == min(count, 4)
        assert (estimate.frames_sampled, estimate.frames_with_face) == (count, count)
    assert len({values(estimate).tobytes() for estimate in estimates}) == 12


def test_an_estimate_names_what_it_shows(model, tiny_processor):
    _, (first, *_) = live(model, tiny_processor, [0.0])
    assert list(first.intensities) == model.config.label_names
    assert list(first.affect) == model.config.input_names
    assert first.detection.box == (8.0, 6.0, 16.0, 20.0)
    assert (first.crop.shape, first.crop.dtype, first.time_s) == ((32, 32, 3), np.uint8, 0.0)


def test_memory_does_not_grow(model, tiny_processor):
    reader, _ = live(model, tiny_processor, np.arange(100) / 2)
    assert len(reader._window) == 4
    assert len(reader._window._times_s) == 4


def test_only_frames_that_are_due_are_looked_at(model, tiny_processor):
    _, estimates = live(model, tiny_processor, np.arange(46) / 30)
    assert [number for number, estimate in enumerate(estimates) if estimate is not None] == [
        0,
        15,
        30,
        45,
    ]


def test_any_clock_will_do(model, tiny_processor):
    since = 1.7e9 + 0.123  # seconds since 1970
    _, late = live(model, tiny_processor, since + np.arange(46) / 30)
    _, early = live(model, tiny_processor, np.arange(46) / 30)
    assert [estimate is None for estimate in late] == [estimate is None for estimate in early]
    assert late[15].time_s == since + 15 / 30
    assert np.array_equal(values(late[45]), values(early[45]))


def test_an_uneven_camera_gives_what_offline_gives_of_the_same_frames(model, tiny_processor):
    generator = np.random.default_rng(5)
    times_s = np.cumsum(generator.choice([0.01, 0.04, 0.2, 0.9], 60, p=[0.3, 0.4, 0.2, 0.1]))
    _, estimates = live(model, tiny_processor, times_s, faceless=(20, 21, 22, 40))
    looked_at = [estimate for estimate in estimates if estimate is not None]
    gaps_s = np.diff([estimate.time_s for estimate in looked_at])
    assert gaps_s.min() < 0.5 < gaps_s.max()
    for number, estimate in enumerate(looked_at):
        recent = [
            other
            for other in looked_at[: number + 1]
            if other.time_s > estimate.time_s - 2.0 + 0.001
        ]
        wanted = affect_in(recent)[-4:]
        assert estimate.frames_in_window == len(wanted)
        assert np.allclose(
            values(estimate),
            offline(model, wanted) if wanted else np.nan,
            atol=1e-5,
            equal_nan=True,
        )


def test_a_face_that_leaves_and_returns(model, tiny_processor):
    _, estimates = live(model, tiny_processor, np.arange(12) / 2, faceless=(0, *range(3, 9)))
    assert [estimate.frames_in_window for estimate in estimates] == [
        0,
        1,
        2,
        2,
        2,
        1,
        0,
        0,
        0,
        1,
        2,
        3,
    ]
    assert [estimate.frames_with_face for estimate in estimates] == [
        0,
        1,
        2,
        2,
        2,
        2,
        2,
        2,
        2,
        3,
        4,
        5,
    ]
    assert [estimate.detection is None for estimate in estimates] == [
        estimate.crop is None and estimate.affect is None for estimate in estimates
    ]
    seen = affect_in(estimates)
    assert np.isnan(values(estimates[0])).all()
    assert np.array_equal(values(estimates[3]), values(estimates[2]))  # nothing came, nothing left
    assert np.allclose(values(estimates[5]), offline(model, seen[1:2]), atol=1e-5)
    assert np.isnan(values(estimates[7])).all()
    assert np.allclose(values(estimates[11]), offline(model, seen[2:]), atol=1e-5)


@pytest.mark.parametrize("time_s", [math.nan, math.inf, None, "1"])
def test_a_time_that_is_none_is_refused(model, tiny_processor, time_s):
    with pytest.raises(ValueError, match="time_s must be a finite number of seconds; got"):
        LiveReader(model, tiny_processor, detector=detector).add(images(1)[0], time_s)


def test_time_that_goes_backwards_is_refused_and_the_stream_goes_on(model, tiny_processor):
    reader, _ = live(model, tiny_processor, [0.0, 0.5])
    with pytest.raises(
        ValueError, match=r"must not go backwards: 0\.4 came after 0\.5; call reset\(\)"
    ):
        reader.add(images(1)[0], 0.4)
    assert reader.add(images(1)[0], 1.0).frames_in_window == 3


def test_an_image_of_another_kind_is_refused(model, tiny_processor):
    reader = LiveReader(model, tiny_processor, detector=detector)
    for image in (
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((0, 32, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"an image must be \(H, W, 3\) uint8 RGB; got"):
            reader.add(image, 0.0)
    assert reader.add(images(1)[0], 0.0).frames_sampled == 1


def test_a_reset_reader_is_a_new_one(model, tiny_processor):
    reader, estimates = live(model, tiny_processor, np.arange(6) / 2)
    reader.reset()
    again = [
        reader.add(image, time_s) for image, time_s in zip(images(6), np.arange(6) / 2, strict=True)
    ]
    assert [values(one).tobytes() for one in again] == [values(one).tobytes() for one in estimates]
    assert again[-1].frames_sampled == 6


def test_a_window_longer_than_the_network_reads_is_refused(model, tiny_processor):
    with pytest.raises(ValueError, match="window_s may be up to 2"):
        LiveReader(model, tiny_processor, window_s=2.5)


def test_what_must_stand_beside_the_numbers_is_said(model, tiny_processor):
    assert LiveReader().notes() == predict_notes()
    assert LiveReader(model, tiny_processor).notes() == ["relative within the clip"]


def predict_notes():
    model = load_pretrained()[0]
    assert model.config.simulated_labels
    return ["learnt from a simulator, not from people's reports", "relative within the clip"]


def test_a_clip_read_live_gives_what_its_file_gives(tmp_path):
    clip = write_video(tmp_path / "face.mp4", camera_move(astronaut(), 40, (320, 240)), 10)  # 4 s
    reader = LiveReader()
    estimates = [reader.add(frame.image, frame.time_s) for frame in read_frames(clip, None)]
    estimates = [estimate for estimate in estimates if estimate is not None]
    whole = predict_video(clip)
    assert len(estimates) == whole.frames_sampled == whole.frames_with_face == 8
    assert np.allclose(values(estimates[-1]), list(whole.intensities.values()), atol=1e-5)
    names = list(estimates[0].affect)
    assert np.allclose(affect_in(estimates), whole.frames[names], atol=1e-5)
    boxes = whole.frames[["box_x", "box_y", "box_width", "box_height"]]
    assert np.allclose([estimate.detection.box for estimate in estimates], boxes, atol=0.06)
    table = running_intensities(whole.frames["time_s"], whole.frames[names])
    assert np.allclose(table.iloc[:, 2:], [values(estimate) for estimate in estimates], atol=1e-5)


def test_the_shipped_checkpoint_reads_on_beyond_its_30_frames():
    photo = next(camera_move(astronaut(), 1, (320, 240)))
    reader, model = LiveReader(), load_pretrained()[0]
    lights = 0.6 + 0.4 * np.sin(np.arange(34))
    estimates = [
        reader.add((photo * light).astype(np.uint8), n / 2) for n, light in enumerate(lights)
    ]
    seen = affect_in(estimates)
    assert len(seen) == 34
    assert estimates[-1].frames_in_window == 30
    for count in (1, 15, 30, 31, 34):
        assert np.allclose(
            values(estimates[count - 1]),
            offline(model, seen[max(0, count - 30) : count]),
            atol=1e-5,
        )


def test_a_gap_has_no_windows(tiny_model, tiny_processor):
    # Windows of 2 s at every second: frames at 0 to 1.5 s, then at 2e7 + (0, 0.5) s.
    times_s = [0, 0.5, 1.0, 1.5, 2e7, 2e7 + 0.5]
    affect = np.random.default_rng(0).random((6, 26)).astype(np.float32)
    windows = sliding_windows(times_s, affect, tiny_model, tiny_processor, 2.0, 1.0)
    assert windows["start_s"].tolist() == [0, 1, 2e7 - 1]
    assert windows["frames_with_face"].tolist() == [4, 2, 2]


def test_windows_of_a_clip_without_gaps_are_all_that_there_are(tiny_model, tiny_processor):
    affect = np.zeros((9, 26), np.float32)
    windows = sliding_windows(np.arange(9) / 2, affect, tiny_model, tiny_processor, 2.0, 0.7)
    # 0, 0.7, ... to the first that reaches the last frame at 4 s: 2.1 s.
    assert windows["start_s"].tolist() == pytest.approx([0, 0.7, 1.4, 2.1])
