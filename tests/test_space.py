"""The Space, started for real and called through its API."""

import importlib.util
import tempfile
from pathlib import Path

import pytest

from mma_mrnnet.data.video_writing import write_video
from mma_mrnnet.demo import astronaut, camera_move
from mma_mrnnet.model.labels import REACTIONS

APP = Path(__file__).resolve().parents[1] / "spaces_demo" / "app.py"


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def client(app, tmp_path_factory):
    gradio_client = pytest.importorskip("gradio_client")
    page = app.build()
    _, url, _ = page.launch(ssr_mode=False, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield gradio_client.Client(url, verbose=False)
    page.close()


@pytest.mark.slow
def test_a_clip_of_a_face_gives_seven_bars_and_a_table(client, tmp_path):
    from gradio_client import handle_file

    clip = write_video(tmp_path / "face.mp4", camera_move(astronaut(), 50), 25)
    before = set(Path(tempfile.gettempdir()).glob("tmp*/frames.csv"))
    bars, timeline, sentence, table = client.predict(handle_file(str(clip)), api_name="/analyse")
    assert sorted(row[0] for row in bars["data"]) == sorted(REACTIONS)
    assert "4 of 4 frames" in sentence  # 2 s at 2 a second
    assert len(timeline["data"]) == 4 * 9
    assert len(Path(table).read_text().splitlines()) == 1 + 4
    # gradio has its copy; the app's own is gone.
    assert set(Path(tempfile.gettempdir()).glob("tmp*/frames.csv")) <= before


@pytest.mark.slow
def test_a_file_that_is_no_video_gives_words_and_not_a_trace(client, tmp_path):
    from gradio_client import handle_file

    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(Exception, match="video") as caught:
        client.predict(handle_file(str(text)), api_name="/analyse")
    assert "Traceback" not in str(caught.value)


def test_the_page_says_what_the_model_learnt_from(app):
    assert "simulator" in app.TEXT
    assert "pseudo-labels" in app.TEXT
    assert "relative within the clip" in app.TEXT


def test_the_folder_is_a_space(app):
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(APP.parent / "README.md")
    assert card.data.sdk == "gradio"
    assert card.data.python_version == "3.11"
    assert (APP.parent / card.data.app_file).is_file()
