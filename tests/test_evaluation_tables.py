"""The tables that `fill_readme.py` puts into the pages."""

import importlib.util
import json
from pathlib import Path

import pytest
from test_cards import EVALUATION, NOTHING, measured

ROOT = Path(__file__).resolve().parents[1]
TRAINING = json.loads((ROOT / "mma_mrnnet" / "pretrained" / "results_mma.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location(
        "evaluation_tables", ROOT / "benchmarks" / "evaluation_tables.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_numbers_without_an_interval_or_a_value_are_shown_as_such(tables):
    assert tables.interval(measured(0.5)) == "0.50 [0.45, 0.55]"
    assert tables.interval({"value": 0.5, "low": None, "high": None}) == "0.50"
    assert tables.interval(NOTHING) == tables.interval(None) == "–"


def test_the_table_sets_the_checkpoint_before_beside_this_one(tables):
    text = tables.evaluation_part(EVALUATION)
    assert rows_of(text)[2:4] == [
        "| london | 40 (25) | 0.52 → 0.71 [0.66, 0.76] | 0.62 → 0.81 [0.76, 0.86] "
        "| 0.90 → 0.90 [0.85, 0.95] | 0.900 → 0.980 [0.960, 1.000] |",
        "| congress | 40 (25) | 0.55 [0.50, 0.60] | 0.65 [0.60, 0.70] | – | – |",
    ]
    assert "shipped before → this one" in text
    assert (
        "The extractor: 2,805,562 weights, 11.2 MB, 20.0 ms a face → "
        "2,800,000 weights, 11.2 MB, 9.5 ms a face "
        "(one thread of one core)."
    ) in text


def test_an_evaluation_of_one_checkpoint_alone_has_no_arrows(tables):
    text = tables.evaluation_part({**EVALUATION, "against": None})
    assert "→" not in text
    assert "shipped before" not in text
    assert "The extractor: 2,800,000 weights" in text


def test_units_are_those_with_a_label(tables):
    assert rows_of(tables.units_table(EVALUATION, TRAINING)) == [
        "| unit: r, F1 (positive) | london | congress |",
        "| --- | --- | --- |",
        "| AU06 | no labels | 0.20 [0.15, 0.25], – (3) |",
        "| AU12 | 0.71 [0.66, 0.76], 0.70 [0.65, 0.75] (11) "
        "| 0.55 [0.50, 0.60], 0.70 [0.65, 0.75] (11) |",
    ]


def test_scores_that_fell_are_named_with_their_source(tables):
    assert "Lower than the earlier checkpoint's" not in tables.scores_note(EVALUATION)  # .52 -> .71
    worse = json.loads(json.dumps(EVALUATION))
    worse["sources"]["london"]["mean_action_unit_correlation"]["value"] = 0.4
    lower = "Lower than the earlier checkpoint's: mean AU correlation on london."
    assert tables.scores_note(worse).endswith(lower)


def test_calibration_errors_before_and_after(tables):
    record = {
        "temperature": 0.8,
        "before": {"congress": {"expression_ece": 0.2, "action_unit_ece": 0.05}},
        "crossfitted": {"congress": {"expression_ece": 0.1, "action_unit_ece": 0.04}},
    }
    text = tables.calibration_table({"calibration": record})
    assert "| congress | 0.200 | 0.100 | 0.050 | 0.040 |" in text
    assert "Temperature of the expressions: 0.80" in text


def test_the_folds_over_people_are_told_in_counts_and_intervals(tables):
    scores = {"smiling": 51, "neutral": 679, "smiling_read_so": 49, "neutral_read_so": 670}
    scores |= {"balanced_accuracy": measured(0.974, 0.01), "auc": measured(0.99, 0.005)}
    result = {
        "scores": {"all": scores},
        "folds": [{}, {}, {}],
        "minutes": 181.6,
        "machine": {"processor": "a core"},
    }
    text = tables.smiles_table({**result, "command": "python x"})
    assert "| all | 49 of 51 | 670 of 679 | 0.974 [0.964, 0.984] | 0.990 [0.985, 0.995] |" in text
    assert text.endswith("3 trainings, 182 minutes (a core): `python x`.")


def clip(deviation, **courses):
    still = (
        None if deviation is None else {"AU12_standard_deviation": deviation, "pixel_change": 1.26}
    )
    return {"still": still, "courses": courses or None}


def test_stillness_is_judged_by_the_aim(tables):
    assert tables.still_cell(clip(0.0123)["still"]) == "± 0.012 (pixels 1.3)"
    assert tables.still_cell(None) == "–"
    clips = {"a": clip(0.01), "b": clip(0.05), "c": clip(None)}
    verdict = "AU12's standard deviation is below 0.05 in 1 of 2 stillest seconds; not in `b`."
    assert tables.still_verdict(clips) == verdict
    assert tables.still_verdict({"a": clip(0.01)}).endswith("in 1 of 1 stillest seconds.")


def test_courses_are_told_by_their_ranges_and_by_when_au12_is_high(tables):
    courses = {
        "time_s": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        "happiness": [0.1, None, 0.9, 0.9, 0.2, 0.3],
        "AU12": [0.5, None, 0.7, 0.8, 0.4, 0.6],
        "AU25": [0.0] * 6,
        "AU04": [0.25, None, 0.25, 0.25, 0.25, 0.75],
    }
    assert tables.spans_above(courses, "AU12") == [(0.0, 0.0), (0.2, 0.3), (0.5, 0.5)]
    assert tables.courses_text({"x": clip(0.1, **courses), "y": clip(None)}) == (
        "- `x`: happiness 0.10 to 0.90, AU12 0.40 to 0.80, AU25 0.00 to 0.00, AU04 0.25 to 0.75. "
        "AU12 is at 0.5 or more in 0.0–0.0 s, 0.2–0.3 s, 0.5–0.5 s."
    )
    calm = {**courses, "AU12": [0.1] * 6}
    assert tables.courses_text({"x": clip(0.1, **calm)}).endswith("at 0.5 or more nowhere.")


def test_steadiness_stands_beside_that_of_the_checkpoint_before(tables):
    steady = {
        "units": ["AU01", "AU12"],
        "mean_correlation": {"as_is": 0.7, "mirrored": 0.6, "averaged": 0.72, "dark": 0.65},
        "mirror_agreement": {"AU01": 0.8, "AU12": 1.0},
        "jitter": {"AU01": 0.5, "AU12": 0.031},
    }
    evaluation = {"sources": {"photos": {"steadiness": steady}}, "against": None}
    assert rows_of(tables.steadiness_table(evaluation))[2:] == [
        "| photos | 0.70 | 0.72 | 0.65 | 0.90 | 0.031 |"
    ]
    before = {"steadiness": {**steady, "jitter": {"AU01": 0.5, "AU12": 0.06}}}
    evaluation["against"] = {"sources": {"photos": before}}
    assert "| 0.060 → 0.031 |" in tables.steadiness_table(evaluation)
