"""Measured errors of an extractor, and the simulated report that repeats them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise, noise_from_errors, report_affect
from mma_mrnnet.training.extractor_errors import (
    measure_errors,
    number_people,
    read_errors,
    split_spread,
)

UNITS = len(ACTION_UNITS)
ROWS = 400


class Crops(SimpleNamespace):
    """What `extractor_errors` reads of a data set of labelled crops."""

    def __len__(self):
        return len(self.sources)


def measured(
    intensity,
    unit_logits,
    *,
    expression=None,
    expression_logits=None,
    values=None,
    label=None,
    graded_units=False,
    **crops,
):
    """The errors of reports (N, 17), (N, 7) and (N, 2), zero and unlabelled where not given."""
    count = len(intensity)
    outputs = {
        "action_unit_logits": torch.as_tensor(unit_logits),
        "expression_logits": torch.as_tensor(
            np.zeros((count, 7)) if expression_logits is None else expression_logits
        ),
        "valence_arousal": torch.as_tensor(np.zeros((count, 2)) if values is None else values),
    }
    labels = {
        "expression_labels": torch.as_tensor(
            np.full(count, NO_CLASS) if expression is None else expression
        ),
        "valence_arousal_labels": torch.as_tensor(
            np.full((count, 2), np.nan) if label is None else label
        ),
    }
    given = {
        "sources": ["render"] * count,
        "subjects": [f"person {number // 4}" for number in range(count)],
        **crops,
    }
    rows = Crops(intensity=torch.as_tensor(intensity), **given)
    made = ["warp", "render", "drawn-units"]
    return measure_errors(outputs, labels, rows, ACTION_UNITS, made, graded_units=graded_units)


def test_people_are_numbered_and_an_unknown_one_is_nobody():
    assert number_people(["ben", "", "anna", "ben"]).tolist() == [2, -1, 1, 2]


@pytest.fixture(scope="module")
def reporter():
    """Intensities of 17 units, 11 and 23 never labelled, and the logits of a known linear reporter."""
    rng = np.random.default_rng(0)
    shown = rng.random((ROWS, UNITS)) * (rng.random((ROWS, UNITS)) < 0.4)
    floor, slope = np.linspace(-4, -2, UNITS), np.linspace(2, 8, UNITS)
    logits = floor + slope * shown
    logits[:, ACTION_UNITS.index(2)] += 3.0 * shown[:, ACTION_UNITS.index(1)]
    logits[:, ACTION_UNITS.index(12)] -= 1.5 * shown[:, ACTION_UNITS.index(15)]
    logits[:, ACTION_UNITS.index(26)] += (
        0.3 * shown[:, ACTION_UNITS.index(25)]
    )  # too small to count
    intensity = shown.copy()
    intensity[:, [ACTION_UNITS.index(11), ACTION_UNITS.index(23)]] = np.nan
    return SimpleNamespace(
        shown=shown, intensity=intensity, logits=logits, floor=floor, slope=slope
    )


# Measuring


def test_a_linear_reporter_gives_back_its_floor_slope_and_cross_talk(reporter):
    units = measured(reporter.intensity, reporter.logits)["made"].action_units
    place = ACTION_UNITS.index(2)
    assert units["AU02"].floor == pytest.approx(reporter.floor[place], abs=1e-6)
    assert units["AU02"].slope == pytest.approx(reporter.slope[place], abs=1e-6)
    assert units["AU02"].cross_talk == pytest.approx({"AU01": 3.0})
    assert units["AU02"].annotated == ROWS
    assert units["AU02"].person == pytest.approx(0, abs=1e-6)
    assert units["AU02"].frame == pytest.approx(0, abs=1e-6)
    assert units["AU12"].cross_talk == pytest.approx({"AU15": -1.5})
    assert units["AU01"].cross_talk == {}


def test_cross_talk_of_less_than_half_a_logit_counts_as_noise(reporter):
    unit = measured(reporter.intensity, reporter.logits)["made"].action_units["AU26"]
    assert unit.cross_talk == {}
    # What is left varies as 0.3 times the intensity of unit 25 does, within a person and between people.
    left = 0.3 * reporter.shown[:, ACTION_UNITS.index(25)].std()
    assert np.hypot(unit.person, unit.frame) == pytest.approx(left, rel=0.1)


def test_units_without_a_varying_label_have_no_errors(reporter):
    still = reporter.intensity.copy()
    still[:, 0] = 0.0
    units = measured(still, reporter.logits)["made"].action_units
    assert units["AU11"] is None and units["AU23"] is None and units["AU01"] is None
    assert units["AU04"] is not None


def test_another_unit_explains_nothing_where_it_is_not_annotated_in_every_row(reporter):
    partial = reporter.intensity.copy()
    partial[0, ACTION_UNITS.index(1)] = np.nan
    units = measured(partial, reporter.logits)["made"].action_units
    assert units["AU02"].cross_talk == {}  # its row 0 has no unit 1
    assert units["AU02"].frame > 0.5
    assert units["AU01"].annotated == ROWS - 1


def test_the_person_part_and_the_frame_part_are_those_of_an_analysis_of_variance():
    # People of two images: means 2 and -2 around 0. Within: four squares of 1 over 4 - 2 = 2. Between: 2 * 2^2 twice
    # over 2 - 1 = 16. Person: (16 - 2) / 2 = 7.
    person, frame = split_spread(np.array([3.0, 1.0, -1.0, -3.0]), np.array([0, 0, 1, 1]))
    assert (person, frame) == pytest.approx((np.sqrt(7), np.sqrt(2)))


def test_people_who_differ_less_than_their_images_have_no_part():
    assert split_spread(np.array([1.0, -1.0, 1.0, -1.0]), np.array([0, 0, 1, 1])) == pytest.approx(
        (0, np.sqrt(2))
    )


def test_all_is_the_frames_where_no_person_is_seen_twice():
    left = np.array([1.0, -1.0, 3.0, -3.0])
    for people in ([0, 1, 2, 3], [-1, -1, -1, -1], [5, 5, 5, 5]):
        assert split_spread(left, np.array(people)) == pytest.approx((0, np.sqrt(5)))


def test_many_people_give_back_the_spreads_that_they_were_made_with():
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(2000), rng.integers(1, 6, 2000))
    left = 0.8 * rng.standard_normal(2000)[people] + 0.5 * rng.standard_normal(len(people))
    assert split_spread(left, people) == pytest.approx((0.8, 0.5), rel=0.05)


def test_expressions_are_told_by_what_they_are_reported_as_on_average():
    # Each of seven expressions 30 times, reported with 3 logits for itself: e^3 / (e^3 + 6) of the probability.
    expression = np.arange(210) % 7
    logits = 3.0 * np.eye(7)[expression] + 5.0  # the same on all changes nothing
    found = measured(
        np.zeros((210, UNITS)),
        np.zeros((210, UNITS)),
        expression=expression,
        expression_logits=logits,
    )
    found = found["made"].expressions
    own = np.exp(3) / (np.exp(3) + 6)
    expected = np.full((7, 7), (1 - own) / 6) + np.eye(7) * (own - (1 - own) / 6)
    np.testing.assert_allclose(found.mean_probability_rows_are_labels, expected, atol=1e-9)
    np.testing.assert_allclose(found.mean_logits_rows_are_labels, 3 * np.eye(7) - 3 / 7, atol=1e-9)
    assert list(found.person) == list(EXPRESSIONS)
    assert max(found.frame.values()) == pytest.approx(0, abs=1e-9)


def test_an_expression_of_fewer_than_twenty_rows_leaves_expressions_unmeasured():
    expression = np.array([*range(7)] * 20 + [NO_CLASS])
    expression[0] = NO_CLASS  # nineteen neutral rows
    zeros = np.zeros((141, UNITS))
    assert measured(zeros, zeros, expression=expression)["made"].expressions is None


def test_valence_gives_back_gain_and_offset_and_arousal_without_labels_nothing():
    label = np.column_stack([np.linspace(-1, 1, 50), np.full(50, np.nan)])
    values = np.column_stack([0.8 * label[:, 0] + 0.1, np.zeros(50)])
    zeros = np.zeros((50, UNITS))
    found = measured(zeros, zeros, label=label, values=values)["made"].valence_arousal
    assert found["valence"].gain == pytest.approx(0.8)
    assert found["valence"].offset == pytest.approx(0.1)
    assert found["arousal"] is None


def talkers():
    """Sixty calm faces: 20 at rest, 20 with lips half apart, and 20 with half a brow, which are neither."""
    intensity = np.zeros((60, UNITS))
    intensity[20:40, ACTION_UNITS.index(25)] = 0.5
    intensity[40:, ACTION_UNITS.index(25)] = 0.5
    intensity[40:, ACTION_UNITS.index(4)] = 0.5
    logits = np.zeros((60, 7))
    logits[:, 0] = 7.0
    logits[20:, EXPRESSIONS.index("surprise")] += (
        2.1  # centred: 1.8 more for surprise, 0.3 less for each other
    )
    logits[40:] = 100.0 * np.eye(7)[1]
    return intensity, logits


def test_neutral_talkers_are_those_with_nothing_but_an_open_mouth():
    intensity, logits = talkers()
    arousal = np.where(np.arange(60) < 20, 0.0, 0.2)
    values = np.column_stack([np.zeros(60), arousal])
    found = measured(intensity, np.zeros((60, UNITS)), expression_logits=logits, values=values)
    found = found["made"].neutral_talkers
    assert (found.rows, found.at_rest) == (20, 20)
    # At an opening of 0.5, so twice that at a full one.
    assert found.logits_added["surprise"] == pytest.approx(3.6)
    assert found.logits_added["neutral"] == pytest.approx(-0.6)
    assert found.valence_arousal_added == pytest.approx({"valence": 0.0, "arousal": 0.4})
    assert found.mean_probability["surprise"] > found.mean_probability_at_rest["surprise"]


def test_too_few_talkers_tell_nothing():
    intensity, logits = talkers()
    found = measured(intensity[1:], np.zeros((59, UNITS)), expression_logits=logits[1:])
    assert found["made"].neutral_talkers is None


def test_errors_are_told_by_source_for_made_faces_and_for_all(reporter):
    sources = ["photo"] * 100 + ["warp"] * 100 + ["drawn-units"] * 200
    errors = measured(reporter.intensity, reporter.logits, sources=sources)
    assert {name: found.rows for name, found in errors.items()} == {
        "all": 400,
        "made": 300,
        "photo": 100,
        "warp": 100,
        "drawn-units": 200,
    }
    assert "made" not in measured(reporter.intensity, reporter.logits, sources=["photo"] * ROWS)
    json.dumps([found.to_json() for found in errors.values()], allow_nan=False)


# Repeating


def test_the_simulated_report_repeats_the_reporter(reporter):
    noise = noise_from_errors(measured(reporter.intensity, reporter.logits))
    true = np.concatenate([np.tile([0, 0, 1, 0, 0, 0, 0, 0, 0], (ROWS, 1)), reporter.shown], 1)[
        :, None
    ]  # (N, 1, 26)
    quiet = ExtractorNoise(**{**vars(noise), "bad_frames": 0.0, "unit_noise": 0.0})
    report = report_affect(
        true, np.zeros((ROWS, 1, 1)), np.zeros((ROWS, 26)), quiet, np.random.default_rng(0)
    )
    units = report[:, 0, 9:]
    told = [place for place, unit in enumerate(ACTION_UNITS) if unit not in (11, 23)]
    expected = 1 / (1 + np.exp(-reporter.logits))
    # The cross-talk from 25 to 26 was too small to be told: 0.3 logits are at most 0.075 in probability.
    np.testing.assert_allclose(units[:, told], expected[:, told], atol=0.076)
    others = [place for place in told if ACTION_UNITS[place] != 26]
    np.testing.assert_allclose(units[:, others], expected[:, others], atol=1e-6)
    assert noise.unsupervised_units == (11, 23)


def test_measured_expressions_and_talkers_come_back_in_the_report():
    expression = np.arange(210) % 7
    intensity, talking = talkers()
    every = np.concatenate([np.zeros((210, UNITS)), intensity])
    every[:210, 0] = 0.9  # no face at rest
    logits = np.concatenate([3.0 * np.eye(7)[expression], talking])
    labels = np.concatenate([expression, np.full(60, NO_CLASS)])
    noise = noise_from_errors(
        measured(every, np.zeros((270, UNITS)), expression=labels, expression_logits=logits)
    )
    quiet = ExtractorNoise(**{**vars(noise), "bad_frames": 0.0, "expression_noise": 0.0})
    true = np.zeros((2, 1, 26))
    true[..., 2] = 1.0  # neutral
    speech = np.array([0.0, 0.5]).reshape(2, 1, 1)
    report = report_affect(true, speech, np.zeros((2, 26)), quiet, np.random.default_rng(0))[
        :, 0, 2:9
    ]
    own = np.exp(3) / (np.exp(3) + 6)
    assert report[0, 0] == pytest.approx(own)
    # Half open: 2.1 logits more for surprise than for the others, as the talkers had.
    assert report[1, 6] / report[1, 1] == pytest.approx(np.exp(2.1))


def test_what_was_not_measured_keeps_its_default(reporter):
    noise, default = (
        noise_from_errors(measured(reporter.intensity, reporter.logits)),
        ExtractorNoise(),
    )
    assert noise.expression_logits is None
    assert noise.valence_arousal_gain == default.valence_arousal_gain
    assert noise.memory == default.memory
    assert noise.unit_slope[ACTION_UNITS.index(11)] == default.unit_slope


def test_made_faces_are_preferred_and_all_rows_stand_in(reporter):
    sources = ["photo"] * 200 + ["warp"] * 200
    logits = reporter.logits + np.where(np.arange(ROWS) < 200, 1.0, 0.0)[:, None]
    floor = reporter.floor[0]
    errors = measured(reporter.intensity, logits, sources=sources)
    assert noise_from_errors(errors).unit_floor[0] == pytest.approx(floor, abs=1e-6)
    photos = measured(reporter.intensity[:200], logits[:200], sources=sources[:200])
    assert noise_from_errors(photos).unit_floor[0] == pytest.approx(floor + 1, abs=1e-6)


def test_errors_without_any_measured_unit_are_refused():
    nothing = measured(np.zeros((30, UNITS)), np.zeros((30, UNITS)))
    with pytest.raises(ValueError, match="no action unit was measured; at least 20"):
        noise_from_errors(nothing)


# Results on disk

SHIPPED = Path(__file__).resolve().parents[1] / "mma_mrnnet" / "pretrained" / "results_mma.json"


@pytest.mark.parametrize("place", ["model/results_mma.json", "model/results.json"])
def test_errors_are_found_in_the_checkpoint(tmp_path, place):
    (tmp_path / "model").mkdir()
    (tmp_path / place).write_text(SHIPPED.read_text("utf-8"))
    found = read_errors(str(tmp_path / "model"))
    assert found["all"].rows == json.loads(SHIPPED.read_text("utf-8"))["errors"]["all"]["rows"]


def test_errors_of_the_run_are_not_those_of_its_uncalibrated_weights(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "results.json").write_text(SHIPPED.read_text("utf-8"))
    with pytest.raises(ValueError, match="there are none"):
        read_errors(str(tmp_path / "best"))


def test_a_checkpoint_whose_results_have_no_errors_is_refused(tmp_path):
    results = json.loads(SHIPPED.read_text("utf-8"))
    del results["errors"]
    (tmp_path / "results_mma.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"there are none under \"errors\" in .*results_mma.json"):
        read_errors(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_results_that_cannot_be_read_are_named(tmp_path, content):
    (tmp_path / "results_mma.json").write_text(content)
    with pytest.raises(ValueError, match=r"results_mma.json: not .* result"):
        read_errors(str(tmp_path))


def test_graded_units_are_measured_against_the_log_odds_of_their_targets():
    # Targets are 1.25 times the intensities: .25, .5 and .75; logits are -1 + .6 log-odds.
    intensity = np.full((60, UNITS), np.nan)
    column = ACTION_UNITS.index(12)
    intensity[:, column] = np.repeat([0.2, 0.4, 0.6], 20)
    logits = np.zeros((60, UNITS))
    logits[:, column] = np.repeat([-1 - 0.6 * np.log(3), -1, -1 + 0.6 * np.log(3)], 20)
    found = measured(intensity, logits, graded_units=True)["all"]
    assert found.graded_units
    unit = found.action_units["AU12"]
    assert (unit.floor, unit.slope, unit.frame) == pytest.approx((-1, 0.6, 0), abs=1e-6)
    assert not measured(intensity, logits)["all"].graded_units
