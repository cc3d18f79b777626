"""What `predict --report`, `predict --annotate` and `compare` promise at the command line."""

import os
import shutil
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity, cli
from mma_mrnnet.video.reading import read_frames
from mma_mrnnet.video.writing import write_video

FACE = cv2.resize(astronaut()[:256, 96:352], (240, 240), interpolation=cv2.INTER_AREA)
GREY = np.full_like(FACE, 128)

pytestmark = pytest.mark.usefixtures("settings_kept")


@pytest.fixture
def run(tiny_model, tiny_processor, tmp_path, capsys):
    """Runs a command with a tiny checkpoint: exit code, stdout's lines, stderr's lines."""
    folder = tmp_path / "checkpoint"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)

    def command(*words, model=folder):
        capsys.readouterr()
        try:
            code = cli.main([*map(str, words), "--model", str(model)])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out.splitlines(), err.splitlines()

    return command


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", [FACE] * 6, 6)


@pytest.fixture
def other(tmp_path):
    return write_video(tmp_path / "other.mp4", [FACE] * 3, 6)


@pytest.fixture
def faceless(tmp_path):
    return write_video(tmp_path / "faceless.mp4", [GREY] * 3, 6)


# ---- predict --report


def test_a_page_has_a_section_for_each_clip_in_their_order(run, clip, other, faceless, tmp_path):
    code, out, err = run("predict", other, clip, faceless, "--report", tmp_path / "all.html")
    assert code == 1  # one has no face; the page says so
    text = (tmp_path / "all.html").read_text("utf-8")
    places = [text.index(f"<h1>{name}.mp4</h1>") for name in ("other", "clip", "faceless")]
    assert places == sorted(places)
    assert "no face in this video" in text
    assert f"wrote {tmp_path / 'all.html'}" in err
    assert len([line for line in out if not line.startswith(" ")]) == 2


def test_a_picture_is_of_one_clip_and_one_person(run, clip, other, tmp_path):
    assert run("predict", clip, "--report", tmp_path / "a.png")[0] == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    for words in ((clip, other), (clip, "--all-faces")):
        code, out, err = run("predict", *words, "--report", tmp_path / "b.png")
        assert (code, out) == (1, [])
        assert "a picture shows one person of one clip; a page (.html) shows several" in err[-1]
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--report", "a.pdf"), "a report is written as .html or .png; got '.pdf'"),
        (("--report", "none/a.html"), "does not exist"),
        (("--annotate", "a.avi"), "a video is written as .mp4; got '.avi'"),
        (("--annotate", "clip.mp4"), "is the clip itself, which is never written over"),
        (("--report", "a.html", "--out", "a.html"), "a table is written as"),
        (("--annotate", "a.mp4", "--report", "a.mp4"), "a report is written as"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    run, clip, tmp_path, monkeypatch, words, what
):
    monkeypatch.chdir(tmp_path)
    before = clip.read_bytes()
    code, out, err = run("predict", "clip.mp4", *words)
    assert (code, out) == (1, [])
    assert what in err[-1]
    assert clip.read_bytes() == before


@pytest.mark.parametrize("command", ["predict", "compare"])
def test_a_photo_that_is_read_as_a_clip_is_never_written_over(run, clip, tmp_path, command):
    photo, link = tmp_path / "photo.png", tmp_path / "link.png"
    Image.fromarray(FACE).save(photo)
    link.symlink_to(photo)
    before = photo.read_bytes()
    for target in (photo, link):
        code, out, err = run(
            command, photo, *([clip] if command == "compare" else []), "--report", target
        )
        assert (code, out) == (1, [])
        assert err[-1] == f"mma-mrnnet: {target}: is one of the clips, which are never written over"
    assert photo.read_bytes() == before


@pytest.mark.parametrize("option", ["--out", "--frames", "--windows"])
def test_a_table_that_was_given_as_a_clip_is_never_written_over(run, tmp_path, option):
    table = tmp_path / "mine.csv"
    table.write_text("a,b\n1,2\n")
    code, _, err = run("predict", table, option, table)
    assert code == 1
    assert "is one of the clips" in err[-1]
    assert table.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("words", [("--report", "a.html"), ("--annotate", "a.mp4")])
def test_a_folder_that_takes_no_files_is_refused_before_any_work(
    run, clip, tmp_path, monkeypatch, words
):
    def closed(**others):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mma_mrnnet.files.tempfile.TemporaryFile", closed)
    option, name = words
    code, out, err = run("predict", clip, option, tmp_path / name)
    assert (code, out) == (1, [])
    assert err[-1] == f"mma-mrnnet: {tmp_path / name}: cannot be written: Permission denied"


def test_a_file_that_cannot_be_written_does_not_cost_the_others_and_is_named(
    run, clip, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / ".of.a.moment"))

    monkeypatch.setattr("mma_mrnnet.tables.cells.write_table", full)
    monkeypatch.setattr("mma_mrnnet.report.page.write_page", full)
    table, page, video = (tmp_path / name for name in ("a.csv", "a.html", "a.mp4"))
    code, out, err = run("predict", clip, "--out", table, "--report", page, "--annotate", video)
    assert code == 1
    assert out  # the result was printed
    assert len(list(read_frames(video))) == 6
    why = "not written: No space left on device"
    assert err[-1] == f"mma-mrnnet: {table}: {why}; {page}: {why}"
    assert any(line.startswith("note: ") for line in err)
    code, _, err = run("compare", clip, clip, "--report", page)
    assert (code, err[-1]) == (1, f"mma-mrnnet: {page}: {why}")


def test_a_name_that_is_no_utf_8_is_read_reported_and_drawn_on(run, clip, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    try:
        shutil.copy(clip, odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    table, page, windows = (tmp_path / name for name in ("a.csv", "a.html", "w.parquet"))
    words = (
        "--out",
        table,
        "--frames",
        tmp_path / "f.json",
        "--windows",
        windows,
        "--report",
        page,
    )
    code, out, err = run("predict", odd, *words, "--annotate", tmp_path / "a.mp4")
    assert code == 0, err
    assert "caf\\udce9.mp4" in out[0]
    assert pd.read_csv(table)["file"][0].endswith("caf\\udce9.mp4")
    assert "<h1>caf\\udce9.mp4</h1>" in page.read_text("utf-8")
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 6
    assert run("compare", odd, odd, "--report", page)[0] == 0
    code, _, err = run("predict", f"{odd}.mp4", *words)
    assert code == 1
    assert "no such file" in err[0]


def test_who_else_is_in_a_clip_is_said_wherever_one_person_alone_is_shown(run, clip, tmp_path):
    two = write_video(tmp_path / "two.mp4", [np.hstack([FACE, GREY, FACE])] * 6, 6)
    said, page = "2 people were seen; this is who is in most frames", tmp_path / "a.html"
    assert run("predict", two, "--report", page)[0] == 0
    assert said in page.read_text("utf-8")
    code, _, err = run("compare", two, clip, "--report", page)
    assert code == 0
    assert f"mma-mrnnet: {two}: {said}" in err
    assert page.read_text("utf-8").count(said) == 1
    assert run("predict", two, "--all-faces", "--report", page)[0] == 0
    assert said not in page.read_text("utf-8")


def test_a_missing_extra_is_told_before_any_work(run, clip, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + [
        "matplotlib"
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = run("predict", clip, "--report", tmp_path / "a.png")
    assert (code, out) == (1, [])
    assert "pip install 'mma-mrnnet[demo]'" in err[-1]
    assert run("predict", clip, "--report", tmp_path / "a.html")[0] == 0  # a page needs no extra


def test_a_model_of_tables_reports_too_and_draws_on_no_frames(
    run, tiny_config, tiny_processor, tmp_path
):
    config = MMAMRNNetConfig(
        **{**tiny_config.to_diff_dict(), "feature_names": ["AU01_r", "AU12_r"], "mma_config": None}
    )
    folder = tmp_path / "tables"
    MMAMRNNetForIntensity(config).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    table = tmp_path / "a.csv"
    pd.DataFrame({"frame": range(6), "AU01_r": 0.5, "AU12_r": 1.0}).to_csv(table, index=False)
    for name in ("a.html", "a.png"):
        code, _, err = run("predict", table, "--report", tmp_path / name, model=folder)
        assert code == 0, err
        assert (tmp_path / name).stat().st_size > 1000
    assert "frame 2" in (tmp_path / "a.html").read_text("utf-8")
    code, _, err = run("predict", table, "--annotate", tmp_path / "a.mp4", model=folder)
    assert code == 1
    assert "--annotate is for videos" in err[-1]


# ---- predict --annotate


def test_a_drawn_clip_has_all_frames_and_leaves_tables_and_results_as_they_are_without(
    run, clip, tmp_path
):
    plain = run("predict", clip, "--frames", tmp_path / "plain.csv")
    words = (
        "--frames",
        tmp_path / "frames.csv",
        "--annotate",
        tmp_path / "drawn.mp4",
        "--report",
        tmp_path / "a.html",
    )
    code, out, err = run("predict", clip, *words)
    assert code == 0
    assert out == plain[1]
    assert f"wrote {tmp_path / 'drawn.mp4'}" in err
    assert len(list(read_frames(tmp_path / "drawn.mp4"))) == 6
    one, two = (pd.read_csv(tmp_path / name) for name in ("plain.csv", "frames.csv"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-5)
    assert len(one) == 2  # 1 s at 2 a second
    assert "a face in 2 of 2 frames" in (tmp_path / "a.html").read_text("utf-8")


def test_with_native_frames_the_table_has_them_all(run, clip, tmp_path):
    words = (
        "--fps",
        "native",
        "--frames",
        tmp_path / "frames.csv",
        "--annotate",
        tmp_path / "drawn.mp4",
    )
    assert run("predict", clip, *words, "--all-faces", "--neutral", "0:1")[0] == 0
    assert len(pd.read_csv(tmp_path / "frames.csv")) >= 6


def test_only_one_clip_is_drawn_on(run, clip, other, tmp_path):
    code, _, err = run("predict", clip, other, "--annotate", tmp_path / "drawn.mp4")
    assert code == 1
    assert err[-1] == "mma-mrnnet: --annotate takes one clip; got 2"


def test_a_clip_without_a_face_is_drawn_with_its_note_and_a_broken_one_is_not(
    run, faceless, tmp_path
):
    code, _, err = run("predict", faceless, "--annotate", tmp_path / "drawn.mp4")
    assert code == 1
    assert any("no face" in line for line in err)
    assert len(list(read_frames(tmp_path / "drawn.mp4"))) == 3
    (tmp_path / "text.mp4").write_text("not a video")
    code, _, err = run("predict", tmp_path / "text.mp4", "--annotate", tmp_path / "none.mp4")
    assert code == 1
    assert not (tmp_path / "none.mp4").exists()


# ---- compare


def test_two_clips_stand_side_by_side(run, clip, other, tmp_path):
    code, out, err = run("compare", clip, other, "--report", tmp_path / "both.html")
    assert code == 0
    names, counts, *rows = out
    assert names.split() == ["clip.mp4", "other.mp4"]
    assert "1.0 s, face in 2 of 2" in counts and "0.5 s, face in 1 of 1" in counts
    column = names.index("other.mp4")
    singles = {}
    for path in (clip, other):
        _, lines, _ = run("predict", path)
        singles[path] = {
            line.split()[0]: line.split()[1] for line in lines if line.startswith("  ")
        }
    assert len(rows) == 7
    for row in rows:
        name = row.split()[0]
        assert (row[:column].split()[1], row[column:].split()[0]) == (
            singles[clip][name],
            singles[other][name],
        )
    assert any("relative within the clip" in line for line in err)
    assert "clip.mp4 and other.mp4" in (tmp_path / "both.html").read_text("utf-8")


def test_two_clips_are_drawn_side_by_side(run, clip, other, tmp_path):
    code, out, err = run(
        "compare", clip, other, "--report", tmp_path / "both.png", "--neutral", "0:1"
    )
    assert code == 0
    assert sum("own neutral from 0 to 1 s" in line for line in err) == 2
    assert all(row.count("(") == 2 for row in out[2:])
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.width > picture.height


def test_a_clip_without_a_face_leaves_its_column_empty_and_is_a_failure(
    run, clip, faceless, tmp_path
):
    for pair in ((faceless, clip), (clip, faceless)):
        code, out, err = run("compare", *pair, "--report", tmp_path / "both.html")
        assert code == 1
        assert any(f"{faceless}: no face" in line for line in err)
        assert sum(" -" in row or row.endswith("-") for row in out[2:]) == 7
        assert "no face in this video" in (tmp_path / "both.html").read_text("utf-8")


def test_compare_wants_two_clips_and_a_place_for_its_report(run, clip, other, tmp_path):
    assert run("compare", clip)[0] == 2
    code, out, err = run("compare", clip, other, "--report", tmp_path / "a.txt")
    assert (code, out) == (1, [])
    assert "a report is written as .html or .png" in err[-1]
