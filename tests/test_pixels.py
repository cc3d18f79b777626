"""The baseline on pixels: its cache, what padding may not change, and the whole path through the loop."""

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from mma_mrnnet.crops.store import CropSettings, store_crops
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.synthetic.drawn_clips import write_drawn_reactions
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.clip_corpora import read_corpus
from mma_mrnnet.training.loop import fit
from mma_mrnnet.video.writing import write_video

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "ablations"
sys.path.insert(0, str(FOLDER))
try:
    from pixels import PixelCache, PixelIntensityConfig, PixelIntensityModel, pixel_stage
finally:
    sys.path.remove(str(FOLDER))

FACE = np.ascontiguousarray(astronaut()[:240, 100:340])
PIXELS = 3 * 32 * 32


def clip_at(path):
    return ClipFile(path.stem, path, "", "train", {"joy": 0.5})


# The cache ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, tiny_processor):
    return PixelCache(tmp_path / "pixels", tiny_processor, fps=2.0)


def test_a_row_is_a_crops_red_then_green_then_blue_from_minus_1_to_1_row_by_row(tmp_path, cache):
    (tmp_path / "clip").mkdir()
    plain = np.zeros((32, 32, 3), np.uint8)
    plain[..., 0], plain[..., 1] = 255, 51
    plain[0, 1] = (0, 51, 255)
    Image.fromarray(plain).save(tmp_path / "clip" / "0.png")
    Image.fromarray(np.full((50, 40, 3), 255, np.uint8)).save(tmp_path / "clip" / "500.png")
    rows = cache.compute(clip_at(tmp_path / "clip"))
    assert (rows.shape, rows.dtype) == ((2, PIXELS), np.float32)
    red, green, blue = rows[0].reshape(3, 1024)
    assert red[:3].tolist() == pytest.approx([1, -1, 1])
    assert green.tolist() == pytest.approx([51 / 127.5 - 1] * 1024)
    assert blue[:3].tolist() == pytest.approx([-1, 1, -1])
    assert rows[1].tolist() == pytest.approx([1] * PIXELS)  # of another size
    assert np.array_equal(cache.stored(clip_at(tmp_path / "clip")), rows)


def test_a_video_has_the_rows_of_its_stored_crops_and_frames_without_a_face_have_none(
    tmp_path, cache
):
    video = write_video(tmp_path / "a.mp4", [FACE, np.full_like(FACE, 128), FACE], fps=2.0)
    store_crops(video, tmp_path / "crops", CropSettings(2.0, 112, "png"), FaceDetector())
    rows = cache.compute(clip_at(video))
    assert rows.shape == (2, PIXELS)
    assert np.array_equal(rows, cache.compute(clip_at(tmp_path / "crops")))


def test_a_clip_without_a_face_has_no_rows(tmp_path, cache):
    video = write_video(tmp_path / "a.mp4", [np.full_like(FACE, 128)], fps=2.0)
    assert cache.compute(clip_at(video)).shape == (0, PIXELS)


# The model ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    names = dict(enumerate(["joy", "calm"]))
    return PixelIntensityModel(PixelIntensityConfig(id2label=names)).eval()


@pytest.fixture
def clips():
    """Pixels of three clips of 5, 2 and 0 of 5 frames."""
    lengths = torch.tensor([5, 2, 0])
    return torch.rand(3, 5, PIXELS) * 2 - 1, torch.arange(5) < lengths[:, None]


def test_it_has_the_parameters_of_its_layers(model):
    # 27 weights a channel in and out, a bias a channel; 2 outputs.
    layers = [27 * inputs * outputs + outputs for inputs, outputs in ((3, 16), (16, 32), (32, 64))]
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == sum(layers) + 2 * 64 + 2
        == 70658
    )


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, 7.0])
def test_what_lies_in_padded_frames_changes_neither_outputs_nor_gradients(model, clips, rubbish):
    pixels, mask = clips
    labels = torch.rand(3, 2)

    def result(values):
        model.zero_grad()
        output = model(affect=values, frame_mask=mask, labels=labels)
        output.loss.backward()
        return [output.logits, output.loss, *(parameter.grad for parameter in model.parameters())]

    filled = torch.where(mask.unsqueeze(-1), pixels, rubbish)
    for one, other in zip(result(pixels), result(filled), strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


def test_the_number_of_padded_frames_changes_nothing(model, clips):
    pixels, mask = clips
    output = model(affect=pixels, frame_mask=mask).logits
    alone = model(affect=pixels[1:2, :2]).logits  # no mask: all frames are real
    torch.testing.assert_close(alone[0], output[1], rtol=0, atol=1e-5)
    longer = torch.nn.functional.pad(pixels, (0, 0, 0, 4), value=math.nan)
    padded = model(affect=longer, frame_mask=torch.nn.functional.pad(mask, (0, 4))).logits
    torch.testing.assert_close(padded, output, rtol=0, atol=1e-5)


def test_a_clip_without_a_frame_gets_the_outputs_of_nothing_seen(model, clips):
    pixels, mask = clips
    output = model(affect=pixels, frame_mask=mask)
    assert output.intensities[2].tolist() == [0.5, 0.5]  # the sigmoid of biases that are still 0
    assert ((output.intensities > 0) & (output.intensities < 1)).all()


def test_what_stays_the_same_in_all_real_frames_of_a_clip_is_not_seen(model, clips):
    pixels, mask = clips
    output = model(affect=pixels, frame_mask=mask).logits
    shifted = model(affect=pixels + torch.rand(3, 1, PIXELS), frame_mask=mask).logits
    torch.testing.assert_close(shifted, output, rtol=0, atol=1e-4)
    assert model(affect=pixels[:, :1]).logits.tolist() == [[0, 0]] * 3  # one frame: nothing moves


def test_the_order_of_frames_counts_and_so_does_the_place_of_a_pixel(model, clips):
    pixels = clips[0][:1]
    output = model(affect=pixels).logits
    assert (model(affect=pixels.flip(1)).logits - output).abs().max() > 1e-4
    assert (model(affect=pixels.flip(2)).logits - output).abs().max() > 1e-4


@pytest.mark.parametrize("shape", [(1, 4, 26), (4, PIXELS), (1, 4, 3, 32, 32)])
def test_pixels_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"affect must be pixels \(B, T, 3072\); got"):
        model(affect=torch.zeros(shape))


@pytest.mark.parametrize("loss", ["pearson", "ccc", "mse"])
def test_it_learns_a_toy_by_each_loss(loss):
    """How much brighter the lower half of a clip's second frame is, and that turned round."""
    generator = torch.Generator().manual_seed(1)
    level = torch.rand(16, generator=generator)
    pixels = torch.rand(16, 3, 3, 32, 32, generator=generator) * 0.05
    pixels[:, 1, :, 16:, :] += 0.3 * level[:, None, None, None]
    labels = torch.stack([level, 1 - level], 1)
    model = PixelIntensityModel(PixelIntensityConfig(num_labels=2, intensity_loss=loss))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        output = model(affect=pixels.flatten(2), labels=labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_saved_model_gives_the_same_outputs_bit_by_bit(model, clips, tmp_path):
    model.save_pretrained(tmp_path)
    again = PixelIntensityModel.from_pretrained(tmp_path)
    assert again.config.label_names == ["joy", "calm"]
    assert list(again.config.channels) == [16, 32, 64]
    assert torch.equal(again(*clips).logits, model(*clips).logits)


# Through the loop --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "corpus"
    write_drawn_reactions(folder, (8, 4, 4), seed=3, size=32)
    return folder


def arguments(run, *words):
    small = ["--num_frames", "5", "--batch_size", "4", "--epochs", "1", "--learning_rate", "0.001"]
    return parse_arguments(["--stage", "mrnn", "--output", str(run), *small, *words])


def test_two_steps_on_drawn_clips_give_a_model_scores_and_tables(drawn, tmp_path):
    args = arguments(tmp_path / "run", "--data", f"hume:{drawn}")
    stage = pixel_stage(args)
    begun = {name: value.clone() for name, value in stage.model.state_dict().items()}
    results = fit(stage, args).to_json()
    assert results == json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["data"]["data"] == (
        "drawn faces of simulated reactions in the layout of Hume-Reaction, as stored face crops"
    )
    assert results["stage"] == "pixels"
    assert (results["data"]["train_reaction"], results["parameters"]) == (8, 70983)
    for name in ("validation", "test"):
        assert results[name]["reactions"]["clips"] == 4
        assert -1 <= results[name]["reactions"]["mean_pearson"] <= 1
    assert "calibration" not in results
    best = results["training"]["history"][0]["score"]
    assert best == pytest.approx(results["validation"]["reactions"]["mean_pearson"], abs=1e-4)
    model = PixelIntensityModel.from_pretrained(tmp_path / "run" / "model")
    assert (model.config.label_names, model.config.simulated_labels) == (list(REACTIONS), True)
    assert any(not torch.equal(value, begun[name]) for name, value in model.state_dict().items())
    with (tmp_path / "run" / "predictions_test.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["File_ID", *REACTIONS]
    assert [row[0] for row in rows] == ["[00012]", "[00013]", "[00014]", "[00015]"]


def test_it_reads_what_the_recurrent_stage_reads_without_an_extractor(drawn, tmp_path):
    args = arguments(tmp_path / "run", "--data", f"hume:{drawn}")
    assert read_corpus(args, needs_extractor=False).simulated_labels
    with pytest.raises(ValueError, match="--stage mrnn needs --mma"):
        read_corpus(args)
    note = drawn / "README.txt"
    text = note.read_text("utf-8")
    note.unlink()
    try:
        assert not read_corpus(args, needs_extractor=False).simulated_labels
    finally:
        note.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "simulated", "--mma", "x"], "--data simulated: its clips hold no pixels"),
        (["--data", "hume:{drawn}", "--monitor", "loss"], "--monitor must be one of Adoration"),
    ],
)
def test_settings_that_do_not_go_with_pixels_are_refused(drawn, tmp_path, words, message):
    args = arguments(tmp_path / "run", *(word.format(drawn=drawn) for word in words))
    with pytest.raises(ValueError, match=message):
        pixel_stage(args)


def test_tables_of_features_hold_no_pixels(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / "clips" / split).mkdir(parents=True)
        (tmp_path / "clips" / split / "a.csv").write_text("one,two\n1,2\n3,4\n", encoding="utf-8")
        (tmp_path / "clips" / split / "metadata.csv").write_text(
            "file_name,joy\na.csv,0.5\n", encoding="utf-8"
        )
    with pytest.raises(
        ValueError, match="its clips hold no pixels; videos or face crops are needed"
    ):
        pixel_stage(arguments(tmp_path / "run", "--data", f"clips:{tmp_path / 'clips'}"))
