"""What `prediction/neutral.py` promises: what a resting face shows is taken out, exactly, and nothing else."""

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut

from mma_mrnnet import predict_video
from mma_mrnnet.model.labels import EXPRESSIONS, affect_names
from mma_mrnnet.prediction.neutral import (
    REST,
    NoNeutralError,
    OwnNeutral,
    check_neutral,
    neutral_stretch,
)
from mma_mrnnet.video.writing import write_video

NAMES = list(affect_names())
AFFECT = len(NAMES)

cv2.setNumThreads(1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logit(p):
    return np.log(p / (1 - p))


def affect_from(valence_arousal, expressions, units):
    """(L, 26) from (L, 2), logits of expressions (L, 7) and of units (L, 17)."""
    shares = np.exp(expressions) / np.exp(expressions).sum(1, keepdims=True)
    return np.hstack([valence_arousal, shares, sigmoid(units)]).astype(np.float32)


@pytest.fixture
def person():
    """Logits of ten frames; the first four rest exactly at `REST`, the others do something."""
    random = np.random.default_rng(0)
    valence_arousal = np.vstack([np.zeros((4, 2)), random.uniform(-0.4, 0.4, (6, 2))])
    expressions = np.vstack(
        [np.tile([0] + [np.log(REST)] * 6, (4, 1)), random.normal(-1, 1, (6, 7))]
    )
    units = np.vstack([np.full((4, 17), logit(REST)), random.normal(-1, 2, (6, 17))])
    return valence_arousal, expressions, units


def test_an_offset_that_a_persons_face_always_shows_is_removed_exactly(person):
    valence_arousal, expressions, units = person
    offset = np.linspace(0.1, 2, 17)
    more = np.array([0, 0.5, 1, 1.5, 0, 0.2, 2])  # of each expression, none of neutral
    shown = affect_from(valence_arousal + np.array([0.2, -0.3]), expressions + more, units + offset)
    plain = affect_from(*person)
    assert np.abs(shown - plain).max() > 0.3
    np.testing.assert_allclose(OwnNeutral.of(shown[:4]).taken_from(shown), plain, atol=2e-6)


def test_a_face_at_rest_changes_nothing_and_a_blank_one_is_never_raised(person):
    plain = affect_from(*person)
    np.testing.assert_allclose(OwnNeutral.of(plain[:4]).taken_from(plain), plain, atol=2e-6)
    valence_arousal, expressions, units = person
    blank = affect_from(valence_arousal, expressions - np.array([0, 3, 3, 3, 3, 3, 3]), units - 3)
    found = OwnNeutral.of(blank[:4]).taken_from(blank)
    np.testing.assert_array_equal(found, blank)


def test_what_comes_out_is_affect_again_even_of_extreme_faces():
    extreme = np.zeros((2, AFFECT), np.float32)
    extreme[:, :2] = [[1, -1], [-1, 1]]
    extreme[0, 2 + EXPRESSIONS.index("happiness")] = extreme[1, 2] = 1
    extreme[1, 9:] = 1
    found = OwnNeutral.of(extreme[:1]).taken_from(extreme)
    assert np.isfinite(found).all()
    assert (np.abs(found[:, :2]) <= 1).all()
    assert ((found[:, 2:] >= 0) & (found[:, 2:] <= 1)).all()
    assert found[:, 2:9].sum(1) == pytest.approx([1, 1], abs=1e-5)


# ---- the stretch


def test_auto_finds_a_planted_calm_stretch(person):
    random = np.random.default_rng(1)
    lively = affect_from(
        random.uniform(-1, 1, (30, 2)), random.normal(0, 1, (30, 7)), random.normal(0, 1, (30, 17))
    )
    lively[13:17] = affect_from(*person)[:4]
    times_s = np.arange(30) / 2
    assert neutral_stretch("auto", times_s, lively, 2.0) == (6.5, 8.0)
    # A frame without a face in the middle of it: no whole stretch lies there any more.
    kept = np.arange(30) != 15
    start, end = neutral_stretch("auto", times_s[kept], lively[kept], 2.0)
    assert end < 7.5 or start > 7.5
    assert end - start == 1.5


def test_a_stretch_needs_the_persons_face(person):
    affect, times_s = affect_from(*person), np.arange(10) / 2
    assert neutral_stretch((1, 1.5), times_s, affect, 2.0) == (1.0, 1.5)
    with pytest.raises(NoNeutralError, match="no face of this person from 6 to 8 s"):
        neutral_stretch((6, 8), times_s, affect, 2.0)
    with pytest.raises(NoNeutralError, match="no 2 s with a face of this person throughout"):
        neutral_stretch("auto", times_s[::2], affect[::2], 2.0)


@pytest.mark.parametrize(
    "neutral", [(2, 1), (0, 0), (-1, 2), (0, float("inf")), (0, float("nan")), (1,), "calm", 3]
)
def test_what_is_no_stretch_is_refused(neutral):
    with pytest.raises(ValueError, match=r"neutral must be \(start, end\) in seconds"):
        check_neutral(neutral)


# ---- in a prediction


@pytest.fixture
def clip(tmp_path):
    face = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
    images = [cv2.convertScaleAbs(face, alpha=0.6 + 0.05 * number) for number in range(8)]
    return write_video(tmp_path / "clip.mp4", images, 2)


def test_a_prediction_says_what_was_taken_out_and_what_it_was_without(
    tiny_model, tiny_processor, clip
):
    plain = predict_video(clip, tiny_model, tiny_processor)
    found = predict_video(clip, tiny_model, tiny_processor, neutral=(0, 1))
    assert (plain.neutral_s, plain.uncorrected) == (None, None)
    assert found.neutral_s == (0.0, 1.0)
    assert found.uncorrected == plain.intensities
    assert found.intensities != plain.intensities
    assert (
        "calibrated by the person's own neutral from 0 to 1 s, unlike in training" in found.notes()
    )
    before, after = (table.frames[NAMES].to_numpy(np.float32) for table in (plain, found))
    np.testing.assert_array_equal(after, OwnNeutral.of(before[:3]).taken_from(before))
    assert found.frames.loc[:2, "valence"].mean() == pytest.approx(0, abs=1e-6)
    pd.testing.assert_frame_equal(
        plain.frames.drop(columns=NAMES), found.frames.drop(columns=NAMES)
    )


def test_the_rate_of_the_table_changes_neither_the_stretch_nor_the_intensities(
    tiny_model, tiny_processor, clip
):
    usual = predict_video(clip, tiny_model, tiny_processor, neutral="auto")
    other = predict_video(clip, tiny_model, tiny_processor, neutral="auto", fps=1)
    assert usual.intensities == other.intensities
    assert usual.neutral_s == other.neutral_s
    assert usual.neutral_s[1] - usual.neutral_s[0] == 1.5


def test_a_clip_without_a_face_in_the_stretch_has_an_error_and_no_intensities(
    tiny_model, tiny_processor, clip
):
    found = predict_video(clip, tiny_model, tiny_processor, neutral=(8, 9))
    assert found.error == "no face of this person from 8 to 9 s, which is to be their neutral"
    assert np.isnan(list(found.intensities.values())).all()
    assert (found.neutral_s, found.uncorrected) == (None, None)
    assert found.frames_with_face == 8
