import pytest
from skimage.data import astronaut
from transformers import pipeline

from mma_mrnnet.data.video_writing import write_video
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.prediction import predict_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "face.mp4", [astronaut()] * 10, 5)


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    return tmp_path


def test_the_task_gives_every_label_with_what_predict_video_says(tiny_model, tiny_processor, checkpoint, clip):
    rows = pipeline("facial-expression-intensity", model=str(checkpoint))(str(clip))
    assert [row["label"] for row in rows] == list(REACTIONS)
    expected = predict_video(clip, tiny_model, tiny_processor).intensities
    assert {row["label"]: row["score"] for row in rows} == pytest.approx(expected, abs=1e-6)


def test_several_clips_give_several_lists(checkpoint, clip):
    assert len(pipeline("facial-expression-intensity", model=str(checkpoint))([str(clip), str(clip)])) == 2


def test_top_k_ranks_a_calibrated_model_and_refuses_another(tiny_model, tiny_processor, checkpoint, clip):
    with pytest.raises(ValueError, match="not calibrated"):
        pipeline("facial-expression-intensity", model=str(checkpoint))(str(clip), top_k=2)
    tiny_model.config.calibrated = True
    tiny_model.save_pretrained(checkpoint)
    best, second = pipeline("facial-expression-intensity", model=str(checkpoint))(str(clip), top_k=2)
    assert best["score"] >= second["score"]


def test_a_clip_without_a_face_is_an_error_in_words(checkpoint, tmp_path):
    grey = write_video(tmp_path / "grey.mp4", [astronaut()[:64, :64] * 0 + 128] * 4, 4)
    with pytest.raises(ValueError, match="no face in this video"):
        pipeline("facial-expression-intensity", model=str(checkpoint))(str(grey))
