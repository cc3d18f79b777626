"""The shipped checkpoint on a real face, end to end, and what is held of the clips that nothing was chosen on."""

import numpy as np
import pytest
import torch

from mma_mrnnet import load_pretrained, predict_image, predict_video
from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.video.writing import write_video


def test_a_smiling_face_reads_as_happy_and_amused(tmp_path):
    clip = write_video(tmp_path / "face.mp4", camera_move(astronaut(), 60), 10)
    prediction = predict_video(clip)
    assert prediction.frames_with_face == prediction.frames_sampled == 12  # 6 s at 2 a second
    assert prediction.frames["happiness"].mean() > prediction.frames["neutral"].mean()
    assert prediction.ranked()[0][0] == "Amusement"


def test_the_photo_alone_reads_as_happy():
    (face,) = predict_image(astronaut())
    assert face.affect["happiness"] > face.affect["neutral"]
    assert face.affect["AU12"] > 0.5
    assert sum(face.affect[name] for name in ("neutral", "happiness")) <= 1 + 1e-5


def test_the_shipped_checkpoint_says_what_it_is():
    model, processor = load_pretrained()
    config = model.config
    assert config.calibrated
    assert config.simulated_labels
    assert config.relative_labels
    assert config.mma_config.prior_only_action_units == [11, 23]
    assert processor.num_frames == config.num_frames == 30
    assert not model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_two_loads_share_nothing():
    first, _ = load_pretrained()
    second, _ = load_pretrained()
    with torch.no_grad():
        first.output.bias += 1
    assert not torch.equal(first.output.bias, second.output.bias)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sampled", "with_face"),
    [
        ("single_face.mp4", 72, 72),
        ("face_noface.mov", 169, 72),
        ("noface_face.mov", 169, 72),
        ("no_face.mp4", 95, 0),
        ("grid_bbaf2n.mpg", 75, 75),
    ],
)
def test_faces_are_found_where_they_are(shared_clips, name, sampled, with_face):
    prediction = predict_video(shared_clips / name, every_frame=True)
    assert prediction.frames_sampled == sampled
    assert abs(prediction.frames_with_face - with_face) <= 2
    if with_face == 0:
        assert prediction.error == "no face in this video"
        assert np.isnan(list(prediction.intensities.values())).all()
    else:
        assert prediction.error is None
        assert np.isfinite(list(prediction.intensities.values())).all()
