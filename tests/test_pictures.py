"""What `video/pictures.py` promises: upright sRGB of 8 bits, whatever a picture file holds."""

import io
import logging

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.data import astronaut

from mma_mrnnet import predict_image
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.video.pictures import PictureError, read_picture

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(path, values, mode=None, **options):
    image = values if isinstance(values, Image.Image) else Image.fromarray(values, mode)
    image.save(path, **options)
    return path


def test_an_ordinary_picture_comes_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path = saved(tmp_path / "a.png", pixels)
    for source in (path, str(path), io.BytesIO(path.read_bytes()), Image.open(path)):
        found = read_picture(source)
        assert (found == pixels).all()
        assert found.dtype == np.uint8
        assert found.flags.writeable


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_turned_picture_is_upright(tmp_path, orientation, turns):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_picture(saved(tmp_path / "a.png", pixels, exif=exif))
    assert (found == np.rot90(pixels, turns)).all()  # NumPy turns counter-clockwise


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (RAMP, ".png"),
        (RAMP.astype(np.uint16) * 257, ".png"),  # 16 bits
        (np.round(RAMP / 255 * 4095).astype(np.uint16), ".png"),  # 12 of 16 bits
        (RAMP.astype(np.int32) * 257, ".tif"),
        (RAMP.astype(np.float32) / 255, ".tif"),
        (RAMP.astype(np.float32), ".tif"),
    ],
)
def test_greys_are_scaled_by_their_range(tmp_path, values, suffix):
    found = read_picture(saved(tmp_path / f"a{suffix}", values))
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - RAMP[..., None]).max() <= 1


def test_floats_of_no_usual_range_are_stretched(tmp_path):
    found = read_picture(saved(tmp_path / "a.tif", RAMP.astype(np.float32) * 10 - 1000))
    assert np.abs(found[..., 0].astype(int) - RAMP).max() <= 1
    flat = read_picture(saved(tmp_path / "b.tif", np.full((4, 4), np.nan, np.float32)))
    assert (flat == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255  # black above, transparent black below
    image = Image.fromarray(pixels).convert(mode)
    options = {}
    if mode == "P":
        image = Image.fromarray(np.repeat([[0], [0], [1], [1]], 4, 1).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 90, 90, 90])
        options = {"transparency": 1}
    found = read_picture(saved(tmp_path / "a.png", image, **options))
    assert (found[:2] == 0).all()
    assert (found[2:] == 255).all()


def profile_of(name):
    """The bytes of a profile; Pillow can make sRGB, and swapped colours of it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def test_colours_of_a_wide_profile_become_srgb(tmp_path):
    # A Display P3 profile: the D50 columns of its primaries in place of those of sRGB.
    content = bytearray(profile_of("sRGB"))
    columns = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for tag, values in columns.items():
        entry = content.index(tag, 128)
        place = int.from_bytes(content[entry + 4 : entry + 8], "big") + 8
        for number, value in enumerate(values):
            fixed = round(value * 65536).to_bytes(4, "big", signed=True)
            content[place + 4 * number : place + 4 * number + 4] = fixed
    wide = bytes(content).replace("sRGB".encode("utf-16-be"), "P3 x".encode("utf-16-be"))
    pixels = np.full((4, 4, 3), (200, 100, 100), np.uint8)
    found = read_picture(saved(tmp_path / "a.png", pixels, icc_profile=wide))
    # P3 (200, 100, 100) is about (213, 93, 96) in sRGB: linear light by the two matrices.
    assert found[0, 0].tolist() == pytest.approx([213, 93, 96], abs=3)
    same = read_picture(saved(tmp_path / "b.png", pixels, icc_profile=profile_of("sRGB")))
    assert (same == pixels).all()


def test_a_broken_profile_is_left_out_with_a_word(tmp_path, caplog):
    pixels = np.full((4, 4, 3), 90, np.uint8)
    path = saved(tmp_path / "a.png", pixels, icc_profile=b"no profile")
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        assert (read_picture(path) == pixels).all()
    assert "its colour profile is left out" in caplog.text


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png")
    path = saved(tmp_path / "a.png", RAMP)
    with pytest.raises(PictureError, match=r"a picture of 16 x 16 is larger than 255 pixels"):
        read_picture(path, max_pixels=255)
    assert read_picture(path, max_pixels=256).shape == (16, 16, 3)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(PictureError, match=r"^photo: not an image that can be read \("):
        read_picture(path, "photo")


def test_a_picture_of_13000_pixels_a_side_is_refused_before_it_is_decoded(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("1", (13_000, 13_000)))
    with pytest.raises(PictureError, match="13000 x 13000 is larger than 67,108,864 pixels"):
        read_picture(path)


def test_grey_of_16_bits_has_the_face_that_8_bits_have(shared_faulty):
    deep, plain = (read_picture(shared_faulty / f"grey{bits}.png") for bits in (16, 8))
    assert np.abs(deep.astype(int) - plain).max() <= 1
    assert len(FaceDetector()(deep)) == len(FaceDetector()(plain)) == 1
    assert len(predict_image(shared_faulty / "grey16.png")) == 1


def test_crops_that_are_stored_turned_are_seen_upright(shared_faulty):
    folder = shared_faulty / "exif_crops"
    crops = [read_picture(path) for path in sorted(folder.glob("*.jpg"))]
    even, odd = np.stack(crops[::2]).mean(0), np.stack(crops[1::2]).mean(0)
    assert np.abs(even - odd).mean() < 5
    assert np.abs(even - np.rot90(odd)).mean() > 20


def test_a_floating_point_photo_is_read_like_the_photo(tmp_path):
    grey = astronaut().mean(2)
    path = saved(tmp_path / "a.tif", (grey / 255).astype(np.float32))
    assert len(FaceDetector()(read_picture(path))) == 1
