import numpy as np
import pytest

from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS
from mma_mrnnet.synthetic.display import CIRCUMPLEX
from mma_mrnnet.synthetic.drawn_faces import (
    EXPRESSION_CIRCUMPLEX,
    blend,
    curve,
    draw_face,
    drawn_faces,
    ellipse,
)

UNIT_COLUMNS = [f"au{unit:02d}" for unit in ACTION_UNITS]


def draw(seed=0, size=112, **units):
    """A face with the units given as `au12=1.0`; the same seed is the same person."""
    intensities = np.zeros(len(ACTION_UNITS))
    for name, intensity in units.items():
        intensities[ACTION_UNITS.index(int(name[2:]))] = intensity
    return draw_face(intensities, rng=np.random.default_rng(seed), size=size)


def changed(seed=0, **units):
    """(112, 112) how far each pixel moves from the same person's face at rest, in grey levels."""
    return np.abs(draw(seed, **units).astype(int) - draw(seed).astype(int)).max(-1)


@pytest.fixture(scope="module")
def dataset():
    return drawn_faces(300, seed=4)


def test_a_face_is_an_rgb_image_of_the_size_asked_for():
    assert draw().shape == (112, 112, 3)
    assert draw(size=64).shape == (64, 64, 3)
    assert draw().dtype == np.uint8


def test_the_same_generator_draws_the_same_face():
    assert np.array_equal(draw(3, au12=0.5), draw(3, au12=0.5))
    assert not np.array_equal(draw(3), draw(4))


@pytest.mark.parametrize("unit", ACTION_UNITS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_action_unit_can_be_seen(unit, seed):
    assert (changed(seed, **{f"au{unit:02d}": 1.0}) > 15).sum() >= 20


@pytest.mark.parametrize("unit", [unit for unit in ACTION_UNITS if unit not in (11, 23)])
def test_a_stronger_unit_changes_the_face_more(unit):
    weak, strong = (changed(1, **{f"au{unit:02d}": value}).sum() for value in (0.3, 1.0))
    assert 0 < weak < strong


# Rows and columns of a 112 crop, with room for the pose: eyes at y 41, nose tip at 57, mouth at 74. The jaw's
# outline starts at the ears.
REGIONS = {
    (1, 2, 4): (16, 44, 20, 92),
    (5, 7): (30, 54, 28, 84),
    (6,): (34, 68, 22, 90),
    (9,): (24, 86, 22, 90),
    (10, 11, 12): (40, 86, 28, 84),
    (15, 20, 23, 24, 25): (62, 92, 34, 78),
    (17,): (46, 102, 14, 98),
    (26,): (46, 110, 14, 98),
}


@pytest.mark.parametrize(
    ("unit", "region"), [(unit, box) for units, box in REGIONS.items() for unit in units]
)
@pytest.mark.parametrize("seed", [0, 5])
def test_a_unit_moves_pixels_in_its_own_region_only(unit, region, seed):
    rows, columns = np.nonzero(changed(seed, **{f"au{unit:02d}": 1.0}))
    top, bottom, left, right = region
    assert rows.min() >= top and rows.max() < bottom
    assert columns.min() >= left and columns.max() < right


def test_parted_lips_show_more_dark_and_white_between_the_corners():
    mouth = slice(66, 84), slice(46, 66)
    closed, parted = (draw(0, **units)[mouth].astype(float).std() for units in ({}, {"au25": 1.0}))
    assert parted > 1.3 * closed


def test_a_jaw_that_drops_with_parted_lips_opens_the_mouth_wider():
    def dark(**units):
        return (draw(0, **units)[64:95, 46:66].max(-1) < 75).sum()

    assert dark(au25=1.0, au26=1.0) > dark(au25=1.0) + 20


def test_the_pupils_lie_at_the_alignment_template():
    # Centre of the darkest pixels around each eye, averaged over people: the pose jitters around 0.
    found = []
    for seed in range(40):
        grey = draw(seed).astype(float).mean(-1)
        for left, right in ((37, 48), (65, 76)):
            window = 255.0 - grey[37:47, left:right]
            weight = (window - np.percentile(window, 85)).clip(0)
            rows, columns = np.mgrid[37:47, left:right]
            found.append(
                ((weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum())
            )
    centres = np.array(found).reshape(-1, 2, 2).mean(0)
    assert centres == pytest.approx(np.array([(41.8, 41.4), (70.0, 41.2)]), abs=1.2)


def test_a_face_of_double_size_is_the_same_face():
    half = draw(2, size=224).reshape(112, 2, 112, 2, 3).mean((1, 3))
    assert np.abs(half - draw(2)).mean() < 6


@pytest.mark.parametrize(
    "wrong", [np.zeros(16), np.full(17, 1.5), np.full(17, -0.1), np.full(17, np.nan)]
)
def test_intensities_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="17 intensities"):
        draw_face(wrong, rng=np.random.default_rng(0))


def test_a_size_too_small_to_draw_on_is_refused():
    with pytest.raises(ValueError, match="size"):
        draw(size=8)


# The canvas


def test_a_curve_passes_through_its_three_points():
    points = curve((0, 0), (5, 3), (10, 0), count=3)
    assert points == pytest.approx(np.array([(0, 0), (5, 3), (10, 0)]))


def test_an_ellipse_keeps_its_half_axes():
    points = ellipse(10, 20, 4, 2)
    assert points.max(0) == pytest.approx([14, 22])
    assert points.min(0) == pytest.approx([6, 18])


def test_a_blend_lies_between_its_colours():
    assert blend((0, 100, 200), (100, 100, 0), 0.25) == (25, 100, 150)


# The data set


def test_the_data_set_has_an_image_and_every_label_column(dataset):
    assert set(dataset.column_names) == {
        *("image", "subject", "source", "valence", "arousal", "expression"),
        *UNIT_COLUMNS,
    }
    assert dataset[0]["image"].size == (112, 112)
    assert UNIT_COLUMNS[0] == "au01" and UNIT_COLUMNS[-1] == "au26"


def test_labels_are_partial_and_no_row_is_without_any(dataset):
    frame = dataset.remove_columns("image").to_pandas()
    has_units = frame[UNIT_COLUMNS].notna()
    has_values = frame[["valence", "arousal"]].notna()
    has_class = frame["expression"] != NO_CLASS
    assert (has_units.all(axis=1) == has_units.any(axis=1)).all()
    assert (has_values.all(axis=1) == has_values.any(axis=1)).all()
    units, values = has_units.all(axis=1), has_values.all(axis=1)
    assert (units | values | has_class).all()
    labels = units.astype(int) + values + has_class
    for kind in (units, values, has_class):
        assert (kind & (labels == 1)).sum() > 20
    assert (units & values & has_class).sum() > 10


def test_labels_stay_in_their_ranges(dataset):
    frame = dataset.remove_columns("image").to_pandas()
    units = frame[UNIT_COLUMNS].to_numpy()
    assert np.nanmin(units) >= 0 and np.nanmax(units) <= 1
    assert frame["valence"].abs().max() <= 1 and frame["arousal"].abs().max() <= 1
    assert set(frame["expression"]) == {NO_CLASS, *range(len(EXPRESSIONS))}


def test_a_longer_data_set_starts_with_the_shorter_one(dataset):
    shorter = drawn_faces(5, seed=4)
    for one, other in zip(shorter, dataset.select(range(5)), strict=True):
        assert np.array_equal(np.asarray(one["image"]), np.asarray(other["image"]))
        assert one["subject"] == other["subject"]
        numbers = [
            [row[name] for name in ("valence", "arousal", *UNIT_COLUMNS)] for row in (one, other)
        ]
        assert np.array_equal(*np.array(numbers), equal_nan=True)


def test_expressions_lie_where_the_reactions_nearest_to_them_do():
    assert tuple(EXPRESSION_CIRCUMPLEX) == EXPRESSIONS
    assert EXPRESSION_CIRCUMPLEX["happiness"] == CIRCUMPLEX["Amusement"]
    assert EXPRESSION_CIRCUMPLEX["neutral"] == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [{"count": -1}, {"seed": -1}])
def test_a_negative_count_or_seed_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 0"):
        drawn_faces(**{"count": 1, "seed": 0, **wrong})
