"""What augmentation does to a crop, kind by kind, and where its random numbers come from."""

import pytest
import torch

from mma_mrnnet.training.augmentation import AUGMENTATIONS, augment_crop, mixed_seed


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def augmented(pixels, kinds, count):
    """(count, 3, S, S): the crop under `count` seeds."""
    return torch.stack(
        [augment_crop(pixels, kinds, generator(mixed_seed(1, seed))) for seed in range(count)]
    )


def halves(side=32, *, upright=False):
    """Bright on the left, or at the top."""
    pixels = torch.full((3, side, side), -0.5)
    pixels[..., : side // 2] = 0.5
    return pixels.transpose(1, 2) if upright else pixels


@pytest.mark.parametrize("side", [32, 33, 112])
def test_augmented_crops_keep_shape_and_range(side):
    result = augmented(torch.rand(3, side, side) * 2 - 1, AUGMENTATIONS, 16)
    assert result.shape == (16, 3, side, side)
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert result.min() >= -1
    assert result.max() <= 1


@pytest.mark.parametrize("kinds", [AUGMENTATIONS, *[(kind,) for kind in AUGMENTATIONS]])
def test_augmentation_leaves_its_input_as_it_was(kinds):
    given = torch.rand(3, 32, 32) * 2 - 1
    before = given.clone()
    augmented(given, kinds, 40)
    assert torch.equal(given, before)


def test_without_any_kind_the_crop_stays_as_it_is():
    given = torch.rand(3, 32, 32) * 2 - 1
    assert torch.equal(augment_crop(given, (), generator()), given)


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        *[
            ("mirror", 0.5),
            ("geometry", 1.0),
            ("grey", 0.2),
            ("blur", 0.25),
            ("colour", 1.0),
            ("light", 0.3),
        ],
        *[("occlusion", 0.15), ("noise", 0.3), ("compression", 0.25)],
    ],
)
def test_each_kind_changes_its_share_of_crops(kind, share):
    given = torch.rand(3, 32, 32) * 2 - 1
    changed = (augmented(given, [kind], 400) != given).flatten(1).any(1).double().mean().item()
    assert changed == pytest.approx(
        share, abs=3 * (share * (1 - share) / 400) ** 0.5
    )  # 3 standard deviations


def test_each_kind_does_what_its_name_says():
    given = torch.rand(3, 32, 32) * 1.6 - 0.8
    mirrored = augmented(given, ["mirror"], 20)
    assert all(torch.equal(crop, given) or torch.equal(crop, given.flip(-1)) for crop in mirrored)
    greyed = [crop for crop in augmented(given, ["grey"], 40) if not torch.equal(crop, given)]
    assert all(torch.equal(crop, given.mean(0).expand(3, -1, -1)) for crop in greyed)
    blurred = [crop for crop in augmented(given, ["blur"], 40) if not torch.equal(crop, given)]
    assert all(crop.std() < 0.8 * given.std() for crop in blurred)
    assert (
        len({round(crop.std().item(), 3) for crop in augmented(given, ["blur"], 200)}) == 4
    )  # sharp, 3 soft
    noise = [
        crop - given for crop in augmented(given, ["noise"], 200) if not torch.equal(crop, given)
    ]
    strengths = torch.tensor([difference.std() for difference in noise])
    assert strengths.max() < 0.105
    assert strengths.mean().item() == pytest.approx(
        0.05, abs=0.012
    )  # even in [0, 0.1), clipped a little at the ends


def test_light_from_aside_scales_brightness_by_an_exponential_of_the_place():
    level = torch.full((3, 32, 32), -0.6)  # 0.4 above black
    for crop in augmented(level, ["light"], 40):
        ratios = ((crop + 1) / 0.4).log()[0]
        across, down = ratios[0].diff(), ratios[:, 0].diff()
        assert torch.allclose(across, across[:1].expand_as(across), atol=1e-4)
        assert torch.allclose(down, down[:1].expand_as(down), atol=1e-4)
        assert ratios.mean().abs() < 1e-4  # the middle of the picture keeps its light


def test_what_covers_a_crop_is_one_grey_rectangle_of_a_tenth_to_a_third_of_the_side():
    given = torch.rand(3, 100, 100) * 1.8 - 0.9
    covered = [
        crop for crop in augmented(given, ["occlusion"], 200) if not torch.equal(crop, given)
    ]
    assert len(covered) > 10
    for crop in covered:
        changed = (crop != given).all(0)
        rows, columns = changed.any(1), changed.any(0)
        assert 10 <= rows.sum() <= 35
        assert 10 <= columns.sum() <= 35
        assert changed.sum() == rows.sum() * columns.sum()
        assert crop[:, changed].unique().numel() == 1


def test_compression_moves_pixels_by_little_and_keeps_what_is_flat():
    along = torch.linspace(-0.8, 0.8, 64)
    smooth = (
        (0.5 * along.view(1, 64, 1) + 0.5 * along.view(1, 1, 64)).expand(3, -1, -1).contiguous()
    )
    compressed = [
        crop for crop in augmented(smooth, ["compression"], 40) if not torch.equal(crop, smooth)
    ]
    assert len(compressed) >= 4
    assert all((crop - smooth).abs().mean() < 0.04 for crop in compressed)
    errors = {round((crop - smooth).abs().mean().item(), 4) for crop in compressed}
    assert len(errors) > 2  # of several qualities


def test_colour_is_one_straight_line_a_channel():
    ramp = torch.linspace(-0.3, 0.3, 32 * 32).view(1, 32, 32).expand(3, -1, -1)
    for crop in augmented(ramp, ["colour"], 10):
        steps = crop.flatten(1).diff(dim=1)
        inside = (crop.flatten(1).abs() < 1)[:, 1:-1].all()
        if inside:
            assert torch.allclose(steps, steps[:1, :1].expand_as(steps), atol=1e-5)


def test_a_kind_that_is_left_out_does_not_change_the_others():
    given = torch.rand(3, 32, 32) - 0.5
    moved = augmented(given, ["geometry"], 20)
    both = augmented(given, ["geometry", "grey"], 20)
    for one, other in zip(moved, both, strict=True):
        grey = one.mean(0).expand(3, -1, -1)
        assert torch.equal(one, other) or torch.allclose(grey, other, atol=1e-6)


def test_an_upright_face_stays_upright():
    result = augmented(halves(upright=True), AUGMENTATIONS, 100)
    assert (result[:, :, 4:14].mean((1, 2, 3)) > result[:, :, 18:28].mean((1, 2, 3))).all()


def test_half_of_the_crops_are_mirrored():
    result = augmented(halves(), AUGMENTATIONS, 400)
    right_is_brighter = result[..., 18:28].mean((1, 2, 3)) > result[..., 4:14].mean((1, 2, 3))
    assert 0.43 < right_is_brighter.float().mean() < 0.57  # 3 standard deviations around a half


def test_what_is_shifted_in_is_black():
    assert augmented(torch.full((3, 32, 32), -1.0), ["geometry"], 200).max() == -1
    corner = augmented(torch.ones(3, 32, 32), ["geometry"], 200)[:, :, 0, 0].amax(1)
    assert corner.min() < -0.5  # a bright crop, turned or shifted, shows black in some corner


def test_geometry_scatters_the_middle_by_its_three_per_cent_of_shift():
    side = 112
    pixels = torch.full((3, side, side), -1.0)
    pixels[:, 52:60, 52:60] = 1.0
    shown = augmented(pixels, ["geometry"], 300).mean(1) + 1  # (300, S, S)
    places = torch.arange(side, dtype=torch.float32)
    total = shown.sum((1, 2))
    for axis in (1, 2):
        centre = (shown.sum(axis) * places).sum(1) / total
        assert centre.mean().item() == pytest.approx(
            55.5, abs=0.6
        )  # 3 standard errors of 3.4 pixels
        assert centre.std().item() == pytest.approx(0.03 * side, rel=0.13)


def test_all_numbers_come_from_the_generator():
    given = torch.rand(3, 32, 32)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = augment_crop(given, AUGMENTATIONS, generator(3))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(augment_crop(given, AUGMENTATIONS, generator(3)), first)
    assert not torch.equal(augment_crop(given, AUGMENTATIONS, generator(4)), first)


def test_neighbouring_numbers_give_unrelated_seeds():
    seeds = {
        mixed_seed(seed, epoch, item)
        for seed in range(10)
        for epoch in range(10)
        for item in range(50)
    }
    assert len(seeds) == 5000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mixed_seed(1, 2) != mixed_seed(2, 1)
    ones = (
        sum(
            (mixed_seed(0, 0, item) ^ mixed_seed(0, 0, item + 1)).bit_count() for item in range(200)
        )
        / 200
    )
    assert ones == pytest.approx(31.5, abs=1)  # of 63 bits, half differ
