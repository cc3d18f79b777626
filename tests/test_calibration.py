"""Calibration of stage 1: what is fitted, that the heads hold it, and that errors are not measured on their own fit."""

import json

import numpy as np
import pytest
import torch

from mma_mrnnet import MMAModel
from mma_mrnnet.model.labels import ACTION_UNITS, NO_CLASS, presence_target
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.train import main
from mma_mrnnet.training.calibration import (
    HeadCalibration,
    calibrate_extractor,
    fit_extractor,
    measure_calibration,
)
from mma_mrnnet.training.datasets import FrameDataset

NAN = float("nan")
UNITS = len(ACTION_UNITS)


def split(count, sharpness=1.0):
    """Expressions drawn from the model's own probabilities, units whose targets lie on a line of its logits.

    `sharpness` multiplies the expression logits afterwards: the model becomes too sure by it.
    """
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 7, generator=rng) * 2
    expression = torch.multinomial(logits.softmax(-1), 1, generator=rng).squeeze(1)
    units = torch.randn(count, UNITS, generator=rng)
    outputs = {"expression_logits": logits * sharpness, "action_unit_logits": units}
    return outputs, {
        "expression_labels": expression,
        "action_unit_labels": (units * 2 + 1).sigmoid(),
    }


def test_the_temperature_undoes_a_known_scaling():
    even, sharp = (fit_extractor(*split(20_000, factor), ["a"] * 20_000) for factor in (1.0, 3.0))
    assert even.temperature == pytest.approx(1, rel=0.03)
    assert sharp.temperature == pytest.approx(3 * even.temperature, rel=1e-3)


def test_the_line_of_a_unit_undoes_a_known_one():
    fitted = fit_extractor(*split(2000), ["a"] * 2000)
    torch.testing.assert_close(fitted.scale, torch.full((UNITS,), 2.0).double(), rtol=0.01, atol=0)
    torch.testing.assert_close(fitted.shift, torch.ones(UNITS).double(), rtol=0.01, atol=0)


def test_what_has_no_label_stays_as_it_is():
    outputs, labels = split(100)
    labels["action_unit_labels"][:, 3] = NAN
    labels["expression_labels"][:] = NO_CLASS
    fitted = fit_extractor(outputs, labels, ["a"] * 100)
    assert fitted.temperature == 1
    assert (fitted.scale[3], fitted.shift[3]) == (1, 0)
    assert fitted.scale[2] > 1.5


def test_a_unit_that_is_never_there_gets_a_finite_line():
    outputs, labels = split(100)
    labels["action_unit_labels"][:, 3] = 0.0
    fitted = fit_extractor(outputs, labels, ["a"] * 100)
    assert 0 < fitted.scale[3] < 2
    assert -10 < fitted.shift[3] < -1


def test_an_output_that_falls_as_its_label_rises_is_flattened_and_never_turned_round():
    outputs, labels = split(500)
    labels["action_unit_labels"] = 1 - labels["action_unit_labels"]
    scale = fit_extractor(outputs, labels, ["a"] * 500).scale
    assert (scale > 0).all()
    assert (scale < 0.1).all()


def shifted_sources(counts, targets):
    """Images on which the model says even odds; each source's units are there with a probability of its own."""
    count = sum(counts)
    outputs = {
        "expression_logits": torch.zeros(count, 7),
        "action_unit_logits": torch.zeros(count, UNITS),
    }
    target = torch.cat(
        [torch.full((many, UNITS), value) for many, value in zip(counts, targets, strict=True)]
    )
    labels = {"expression_labels": torch.full((count,), NO_CLASS), "action_unit_labels": target}
    sources = [name for name, many in zip("abc", counts, strict=False) for _ in range(many)]
    return fit_extractor(outputs, labels, sources).shift.sigmoid()


def test_sources_weigh_the_same_however_many_images_they_have():
    # Nine in ten of 1000 images, one in ten of 100: between them one in two.
    torch.testing.assert_close(
        shifted_sources([1000, 100], [0.9, 0.1]), torch.full((UNITS,), 0.5).double()
    )


def test_a_source_of_few_images_weighs_in_proportion():
    # 5 of the 50 images of a full weight: (.9 * 1 + .1 * .1) / 1.1 = .8273.
    found = shifted_sources([1000, 5], [0.9, 0.1])
    torch.testing.assert_close(found, torch.full((UNITS,), 0.8273).double(), rtol=2e-3, atol=0)


def test_the_heads_hold_the_calibration_exactly(tiny_mma):
    for head in (tiny_mma.expression_head, tiny_mma.action_unit_head):
        torch.nn.init.normal_(head.bias)  # 0 in a new model, which would hide what becomes of it
    pixels = torch.rand(5, 3, 32, 32)
    names = ("expression_logits", "action_unit_logits")
    fitted = HeadCalibration(
        2.5, torch.linspace(0.5, 2, UNITS).double(), torch.linspace(-1, 1, UNITS).double()
    )
    with torch.no_grad():
        before = tiny_mma(pixels)
        fitted.fold_into(tiny_mma)
        after = tiny_mma(pixels)
    expected = fitted.apply({name: before[name] for name in names})
    for name in names:
        torch.testing.assert_close(after[name], expected[name])
    torch.testing.assert_close(after.expression_logits, before.expression_logits / 2.5)
    unit = before.action_unit_logits[:, -1] * 2 + 1
    torch.testing.assert_close(after.action_unit_logits[:, -1], unit)
    assert torch.equal(after.valence_arousal, before.valence_arousal)


def test_crossfitted_errors_are_those_of_the_other_half_of_the_people(tiny_mma, monkeypatch):
    rows = FrameDataset(drawn_faces(40, seed=0, size=32))
    rows.subjects = [f"person {number // 4}" for number in range(40)]  # four images each
    outputs, _ = split(40)
    labels = {
        "expression_labels": rows.expression,
        "action_unit_labels": presence_target(rows.intensity),
    }
    seen = []

    def spy(outputs, labels, sources):
        seen.append(len(sources))
        # Tells the half by its size of fit: every unit's probability becomes nearly 0 or 1.
        shift = torch.full((UNITS,), -50.0 if len(seen) % 2 else 50.0).double()
        return HeadCalibration(1.0, torch.ones(UNITS).double(), shift)

    monkeypatch.setattr("mma_mrnnet.training.calibration.fit_extractor", spy)
    calibrated, record = calibrate_extractor(tiny_mma, outputs, labels, rows)
    assert seen == [40, 20, 20]  # all images, then the halves: whole people of four images
    assert record.fitted_on == "validation"
    assert (calibrated["action_unit_logits"] < -40).all()
    # One half of the images says 1 for every unit and the other 0: that is an error of presence whatever the labels.
    assert record.crossfitted["drawn"].action_unit_ece > record.before["drawn"].action_unit_ece


def test_a_unit_is_fitted_to_its_presence_and_not_to_its_intensity(tiny_mma):
    # Half of the images are at .3 and half at .5, all with the same output: half of them show the
    # unit, so even odds, though the mean is .4 and the targets of training are .375 and .625.
    rows = FrameDataset(drawn_faces(100, seed=0, size=32))
    rows.intensity = torch.tensor([0.3, 0.5] * 50).unsqueeze(1).repeat(1, UNITS)
    rows.intensity[:, 1] = torch.tensor([0.3, 0.3, 0.3, 0.5, 0.5]).repeat(20)
    rows.intensity[:, 2] = torch.tensor([0.3] * 81 + [0.5] * 19)
    outputs = {
        "expression_logits": torch.zeros(100, 7),
        "action_unit_logits": torch.zeros(100, UNITS),
    }
    labels = {
        "expression_labels": rows.expression,
        "action_unit_labels": presence_target(rows.intensity),
    }
    shift = calibrate_extractor(tiny_mma, outputs, labels, rows)[1].action_unit_shift
    assert float(torch.tensor(shift[0]).sigmoid()) == pytest.approx(0.5)
    # The ramp's mean would be .475.
    assert float(torch.tensor(shift[1]).sigmoid()) == pytest.approx(0.4, abs=0.02)
    assert shift[2] == 0  # 19 images show it: too few for a line


def test_the_record_tells_what_was_done(tiny_mma):
    rows = FrameDataset(drawn_faces(60, seed=0, size=32))
    outputs, _ = split(60, sharpness=4.0)
    labels = {
        "expression_labels": rows.expression,
        "action_unit_labels": presence_target(rows.intensity),
    }
    before = {name: value.clone() for name, value in outputs.items()}
    calibrated, record = calibrate_extractor(tiny_mma, outputs, labels, rows)
    assert record.fitted_on == "validation"
    assert record.temperature > 2  # labels that have nothing to do with so sure an output
    assert record.before == measure_calibration(before, rows)
    assert all(
        torch.equal(outputs[name], before[name]) for name in before
    )  # nothing that came in was changed
    torch.testing.assert_close(
        calibrated["expression_logits"], before["expression_logits"] / record.temperature
    )
    assert record.crossfitted["drawn"].expression_ece < record.before["drawn"].expression_ece


def test_training_leaves_a_calibrated_model_and_reports_it(tmp_path):
    words = [
        "--stage",
        "mma",
        "--data",
        "drawn",
        "--items",
        "40",
        "--image_size",
        "32",
        "--epochs",
        "1",
    ]
    words += [
        "--layer_type",
        "basic",
        "--embedding_size",
        "8",
        "--hidden_sizes",
        "8",
        "--depths",
        "1",
    ]
    main([*words, "--batch_size", "16", "--output", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    best, model = (MMAModel.from_pretrained(tmp_path / name).eval() for name in ("best", "model"))
    temperature = results["calibration"]["temperature"]
    ratio = best.expression_head.weight / model.expression_head.weight
    torch.testing.assert_close(ratio, torch.full_like(ratio, temperature), rtol=1e-3, atol=1e-3)
    assert torch.equal(best.valence_arousal_head.weight, model.valence_arousal_head.weight)
    rows = FrameDataset(drawn_faces(8, seed=1, size=32))
    pixels = (
        torch.stack([rows[number]["crop"] for number in range(8)]).permute(0, 3, 1, 2) / 127.5 - 1
    )
    with torch.no_grad():
        presence = model(pixels).action_unit_logits.sigmoid()
    place = ACTION_UNITS.index(12)
    known = ~rows.intensity[:, place].isnan()
    expected = np.corrcoef(presence[known, place], rows.intensity[known, place])[0, 1]
    assert results["validation"]["drawn"]["action_units"]["AU12"]["correlation"] == pytest.approx(
        expected, abs=1e-3
    )
