"""The one place that scales and pads: values, padding, thinning, and the Auto classes' way in."""

import json
import logging
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.model.clip_length import kept_indices, thinned_indices
from mma_mrnnet.video.reading import FrameClock, read_frames


def clip(frames, side=32, channels_first=False):
    shape = (frames, 3, side, side) if channels_first else (frames, side, side, 3)
    return np.random.randint(0, 256, shape, dtype=np.uint8)


def test_scaling_is_minus_127_and_a_half_over_127_and_a_half(tiny_processor):
    every_value = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    wanted = (torch.from_numpy(every_value).permute(0, 3, 1, 2).double() - 127.5) / 127.5
    scaled = tiny_processor.scale(every_value)
    assert scaled.dtype == torch.float32
    assert (scaled - wanted).abs().max() <= 1e-6
    assert (scaled.min(), scaled.max()) == (-1, 1)


def test_torch_and_numpy_channels_first_and_last_give_the_same(tiny_processor):
    crops = clip(3)
    wanted = tiny_processor.scale(crops)
    assert torch.equal(tiny_processor.scale(torch.from_numpy(crops)), wanted)
    assert torch.equal(tiny_processor.scale(np.moveaxis(crops, -1, 1)), wanted)


def test_where_both_ends_could_be_colours_the_last_axis_is():
    processor = MMAMRNNetVideoProcessor(size={"height": 3, "width": 32})
    crops = clip(1)[:, :3]  # (1, 3, 32, 3)
    wanted = (torch.from_numpy(crops).permute(0, 3, 1, 2).double() - 127.5) / 127.5
    assert torch.allclose(processor.scale(crops).double(), wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 32, 32, 1), (2, 32, 32, 4), (1, 2, 32, 32, 3)])
def test_another_shape_is_refused(tiny_processor, shape):
    with pytest.raises(ValueError, match="crops must be"):
        tiny_processor.scale(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("side", [16, 40, 112])
def test_another_size_is_resized(tiny_processor, side):
    flat = np.full((2, side, side, 3), 51, np.uint8)
    scaled = tiny_processor.scale(flat)
    assert scaled.shape == (2, 3, 32, 32)
    assert torch.allclose(scaled, torch.tensor((51 - 127.5) / 127.5), atol=1e-6)


def test_no_crops_give_no_pixels(tiny_processor):
    assert tiny_processor.scale(clip(0)).shape == (0, 3, 32, 32)
    assert tiny_processor.scale(clip(0, side=40)).shape == (0, 3, 32, 32)


def test_padding_stands_at_the_end_and_is_zero(tiny_processor):
    sequences = [
        torch.rand(2, 26) + 1,
        torch.rand(4, 26) + 1,
        torch.rand(0, 26),
        torch.rand(1, 26) + 1,
    ]
    values, frame_mask = tiny_processor.pad(sequences)
    assert values.shape == (4, 4, 26)
    assert frame_mask.tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [False, False, False, False],
        [True, False, False, False],
    ]
    for row, sequence in enumerate(sequences):
        assert torch.equal(values[row, : len(sequence)], sequence)
        assert torch.equal(values[row, len(sequence) :], torch.zeros(4 - len(sequence), 26))


def test_crops_and_affect_are_padded_alike(tiny_processor):
    affect, pixels = np.random.rand(2, 5).astype(np.float32), clip(2)
    assert torch.equal(tiny_processor.pad([affect])[1], tiny_processor.pad([pixels])[1])
    assert tiny_processor.pad([affect])[0].dtype == torch.float32
    assert tiny_processor.pad([pixels])[0].dtype == torch.uint8


def test_the_padded_clips_are_copies(tiny_processor):
    sequence = torch.ones(4, 26)
    tiny_processor.pad([sequence])[0].zero_()
    assert torch.equal(sequence, torch.ones(4, 26))


def test_more_frames_than_t_are_thinned_evenly_with_both_ends_kept_and_a_warning(
    tiny_processor, caplog
):
    sequence = torch.arange(10.0)[:, None]
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        values, frame_mask = tiny_processor.pad([sequence])
    assert values[0, :, 0].tolist() == [0.0, 3.0, 6.0, 9.0]
    assert frame_mask.all()
    assert "10 frames is thinned evenly to 4" in caplog.text


def test_t_frames_are_taken_as_they_are_without_a_warning(tiny_processor, caplog):
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        assert torch.equal(tiny_processor.pad([torch.arange(4.0)])[0][0], torch.arange(4.0))
    assert not caplog.text


@pytest.mark.parametrize(
    ("length", "most"), [(31, 30), (59, 30), (61, 30), (1000, 30), (5, 4), (2, 1)]
)
def test_thinning_takes_each_frame_once_and_leaves_even_gaps(length, most):
    kept = thinned_indices(length, most)
    gaps = np.diff(kept)
    assert len(kept) == most
    assert kept[0] == 0
    assert most == 1 or kept[-1] == length - 1
    assert (gaps >= 1).all()
    assert most == 1 or gaps.max() - gaps.min() <= 1


def test_nothing_and_clips_that_differ_are_refused(tiny_processor):
    with pytest.raises(ValueError, match="at least one clip"):
        tiny_processor.pad([])
    with pytest.raises(ValueError, match="one shape"):
        tiny_processor.pad([torch.zeros(2, 26), torch.zeros(2, 9)])


@pytest.mark.parametrize("side", [32, 40])
@pytest.mark.parametrize("kind", ["numpy", "torch, channels first", "list of frames"])
def test_a_call_scales_and_pads_clips_of_different_lengths(tiny_processor, side, kind):
    clips = [clip(2, side), clip(4, side), clip(1, side)]
    given = {
        "numpy": clips,
        "torch, channels first": [torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in clips],
        "list of frames": [list(frames) for frames in clips],
    }[kind]
    batch = tiny_processor(given, return_tensors="pt")
    values, frame_mask = tiny_processor.pad([tiny_processor.scale(frames) for frames in clips])
    assert set(batch) == {"pixel_values", "frame_mask"}
    assert torch.equal(batch["pixel_values"], values)
    assert torch.equal(batch["frame_mask"], frame_mask)


def test_a_call_takes_a_clip_without_frames(tiny_processor):
    batch = tiny_processor([clip(0), clip(3)], return_tensors="pt")
    assert batch["frame_mask"].sum(1).tolist() == [0, 3]
    assert torch.equal(batch["pixel_values"][0], torch.zeros(4, 3, 32, 32))


def test_one_clip_is_a_batch_of_one_and_numpy_comes_on_request(tiny_processor):
    assert tiny_processor(clip(3), return_tensors="pt")["pixel_values"].shape == (1, 4, 3, 32, 32)
    assert isinstance(tiny_processor([clip(3)], return_tensors="np")["pixel_values"], np.ndarray)


def test_a_call_goes_straight_into_the_model(tiny_processor, tiny_model):
    assert (
        tiny_model(**tiny_processor([clip(2), clip(0)], return_tensors="pt"))
        .intensities.isfinite()
        .all()
    )


def test_saved_and_loaded_by_any_road_it_is_the_same(tiny_processor, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    crops = clip(3, side=40)
    wanted = tiny_processor([crops], return_tensors="pt")
    for road in (MMAMRNNetVideoProcessor, AutoVideoProcessor, AutoProcessor):
        loaded = road.from_pretrained(tmp_path)
        assert type(loaded) is MMAMRNNetVideoProcessor
        assert loaded.num_frames == 4
        assert torch.equal(
            loaded([crops], return_tensors="pt")["pixel_values"], wanted["pixel_values"]
        )


def test_settings_of_one_call_count(tiny_processor):
    clip = torch.full((2, 3, 32, 32), 0.5)
    batch = tiny_processor([clip], do_rescale=False, num_frames=3, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 3, 32, 32)
    assert torch.equal(batch["pixel_values"][0, :2], torch.zeros(2, 3, 32, 32))  # (0.5 - 0.5) / 0.5


def test_crops_that_are_no_bytes_are_refused_where_bytes_are_scaled(tiny_processor):
    with pytest.raises(ValueError, match="uint8"):
        tiny_processor.scale(torch.rand(2, 3, 32, 32))


# Ways of making a clip fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "length", "wanted"),
    [
        ("thin", 0, []),
        ("thin", 2, [0, 1]),
        ("thin", 5, [0, 1, 3, 4]),  # 0, 1.33, 2.67, 4
        ("truncate", 0, []),
        ("truncate", 2, [0, 1]),
        ("truncate", 5, [0, 1, 2, 3]),
        ("resample", 0, []),
        ("resample", 1, [0, 0, 0, 0]),
        ("resample", 2, [0, 0, 1, 1]),  # 0, 0.33, 0.67, 1
        ("resample", 3, [0, 1, 1, 2]),  # 0, 0.67, 1.33, 2
        ("resample", 4, [0, 1, 2, 3]),
        ("resample", 5, [0, 1, 3, 4]),
    ],
)
def test_each_policy_keeps_its_frames_in_a_batch_and_in_a_call(
    tiny_processor, policy, length, wanted
):
    assert kept_indices(length, 4, policy).tolist() == wanted
    tiny_processor.length_policy = policy
    crops = clip(length)
    values, frame_mask = tiny_processor.pad([np.arange(length, dtype=np.float32)])
    assert values[0].tolist() == wanted + [0.0] * (4 - len(wanted))
    assert frame_mask[0].tolist() == [True] * len(wanted) + [False] * (4 - len(wanted))
    called = tiny_processor([crops], return_tensors="pt")
    assert torch.equal(called["frame_mask"], frame_mask)
    assert torch.equal(
        called["pixel_values"][0, : len(wanted)], tiny_processor.scale(crops[wanted])
    )


def test_a_policy_of_one_call_counts_there_alone(tiny_processor):
    sequence = torch.arange(6.0)
    assert tiny_processor.pad([sequence], length_policy="truncate")[0].tolist() == [[0, 1, 2, 3]]
    crops = clip(1)
    assert tiny_processor([crops], length_policy="resample", return_tensors="pt")[
        "frame_mask"
    ].all()
    assert tiny_processor([crops], length_policy="resample", num_frames=2, return_tensors="pt")[
        "frame_mask"
    ].all()
    assert tiny_processor([crops], return_tensors="pt")["frame_mask"].sum() == 1
    assert tiny_processor.pad([sequence])[0].tolist() == [[0, 2, 3, 5]]  # 0, 1.67, 3.33, 5


@pytest.mark.parametrize(
    ("policy", "said"), [("truncate", "10 frames is cut to the first 4"), ("resample", "thinned")]
)
def test_the_warning_says_what_becomes_of_a_long_clip(tiny_processor, caplog, policy, said):
    tiny_processor.length_policy = policy
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        tiny_processor.pad([torch.zeros(3)])
        assert not caplog.text
        tiny_processor.pad([torch.zeros(10)])
    assert said in caplog.text


def test_the_policy_is_saved_loaded_and_overridden(tiny_processor, tmp_path):
    assert MMAMRNNetVideoProcessor().length_policy == "thin"
    MMAMRNNetVideoProcessor(length_policy="truncate", num_frames=4).save_pretrained(tmp_path)
    assert MMAMRNNetVideoProcessor.from_pretrained(tmp_path).length_policy == "truncate"
    for road in (MMAMRNNetVideoProcessor, AutoVideoProcessor, AutoProcessor):
        loaded = road.from_pretrained(tmp_path, length_policy="resample")
        assert loaded.pad([torch.arange(2.0)])[0].tolist() == [[0, 0, 1, 1]]


def test_a_processor_from_before_there_was_a_choice_thins(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.json")
    old = json.loads(file.read_text())
    del old["length_policy"]
    file.write_text(json.dumps(old))
    assert MMAMRNNetVideoProcessor.from_pretrained(tmp_path).length_policy == "thin"


def test_another_policy_is_refused_wherever_it_comes_from(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    for use in (
        lambda: MMAMRNNetVideoProcessor(length_policy="loop"),
        lambda: MMAMRNNetVideoProcessor.from_pretrained(tmp_path, length_policy="loop"),
        lambda: tiny_processor.pad([torch.zeros(2)], length_policy="loop"),
        lambda: tiny_processor([clip(2)], length_policy="loop"),
    ):
        with pytest.raises(
            ValueError, match="length_policy must be one of thin, truncate, resample; got 'loop'"
        ):
            use()


# Videos of crops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.5, 2.0, 24000 / 1001, 25.0])
def test_a_videos_frames_are_chosen_as_for_prediction(rate):
    clock, processor = FrameClock(2.0), MMAMRNNetVideoProcessor()
    chosen = processor.sample_frames(VideoMetadata(total_num_frames=200, fps=rate))
    assert chosen.tolist() == [frame for frame in range(200) if clock.keeps(frame / rate)]


def test_an_array_has_the_models_rate_already_and_a_header_without_numbers_is_refused():
    processor = MMAMRNNetVideoProcessor()
    assert processor.sample_frames(VideoMetadata(total_num_frames=3), num_frames=30).tolist() == [
        0,
        1,
        2,
    ]
    with pytest.raises(
        ValueError, match=r"does not say how many frames it has.*convert it to \.mp4"
    ):
        processor.sample_frames(VideoMetadata(total_num_frames=0, fps=25.0))


@pytest.mark.parametrize("name", ["crops.mp4", "crops_rotated.mp4", "crops_vfr.mp4"])
def test_a_file_of_crops_gives_the_frames_that_the_packages_reader_gives(name, shared_faulty):
    processor = MMAMRNNetVideoProcessor()
    frames = np.stack([frame.image for frame in read_frames(shared_faulty / name, 2.0)])
    inputs = processor(str(shared_faulty / name), return_tensors="pt", do_sample_frames=True)
    expected = processor([frames], return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
    assert torch.equal(inputs["frame_mask"], expected["frame_mask"])


def test_a_rate_of_the_call_goes_before_the_processors_own(shared_faulty):
    place = str(shared_faulty / "crops.mp4")
    processor = MMAMRNNetVideoProcessor()
    inputs = processor(place, return_tensors="pt", do_sample_frames=True, fps=1.0)
    assert inputs["frame_mask"].sum() == len(list(read_frames(place, 1.0)))


def test_without_the_package_a_file_of_crops_is_refused_and_arrays_are_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mma_mrnnet.video.sources", None)
    processor = MMAMRNNetVideoProcessor()
    with pytest.raises(ValueError, match=r"clip\.mp4: only the package mma-mrnnet reads video"):
        processor(str(tmp_path / "clip.mp4"), return_tensors="pt")
    assert processor([clip(2)], return_tensors="pt")["frame_mask"].sum() == 2


def test_transparent_frames_lie_on_white():
    crops = np.random.randint(0, 256, (3, 32, 32, 4), dtype=np.uint8)
    processor = MMAMRNNetVideoProcessor(size={"height": 32, "width": 32}, num_frames=3)
    for opacity, wanted in ((255, crops[..., :3]), (0, np.full_like(crops[..., :3], 255))):
        crops[..., 3] = opacity
        for clip in (crops, crops.transpose(0, 3, 1, 2), [Image.fromarray(each) for each in crops]):
            seen = processor([clip], return_tensors="pt").pixel_values[0]
            assert torch.equal(seen, processor.scale(wanted))
    crops[:] = [100, 200, 0, 51]  # a fifth of it, the rest white: 0.2 * 100 + 0.8 * 255 = 224
    seen = processor(crops, return_tensors="pt", do_normalize=False, do_rescale=False)
    assert seen.pixel_values[0, 0, :, 0, 0].tolist() == [224.0, 244.0, 204.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"do_center_crop": True, "crop_size": 24}, "do_center_crop must be False"),
        ({"do_pad": True}, "do_pad must be False"),
        ({"size": {"shortest_edge": 32}}, "size of the processor must be"),
    ],
)
def test_what_an_aligned_crop_cannot_bear_is_refused(settings, said, tiny_processor):
    with pytest.raises(ValueError, match=said):
        MMAMRNNetVideoProcessor(**settings)
    with pytest.raises(ValueError, match=said):
        tiny_processor(np.zeros((2, 40, 40, 3), np.uint8), return_tensors="pt", **settings)
