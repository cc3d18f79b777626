"""Simulated reactions as a folder of drawn faces that the reader of Hume-Reaction takes for its own."""

import csv
import hashlib

import numpy as np
import pytest
from PIL import Image

from mma_mrnnet import cli
from mma_mrnnet.corpora.hume_reaction import load_hume_reaction
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.synthetic.drawn_clips import is_drawn, write_drawn_reactions
from mma_mrnnet.synthetic.drawn_faces import draw_face
from mma_mrnnet.synthetic.reactions import hume_like_splits

COUNTS = (13, 2, 2)  # a person has about eleven clips: the twelfth is another's


def digests(folder):
    """Digest of each file below, by its place."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "corpus"
    write_drawn_reactions(folder, COUNTS, seed=3, size=24)
    return folder


@pytest.fixture(scope="module")
def simulated():
    """(split, clip) in the order of the ids."""
    splits = hume_like_splits(3, COUNTS)
    return [(split, clip) for split, clips in splits.items() for clip in clips]


def test_the_reader_finds_the_simulated_labels_splits_and_a_crop_for_each_frame(drawn, simulated):
    clips = load_hume_reaction(drawn)
    assert [clip.clip_id for clip in clips] == [f"{number:05d}" for number in range(17)]
    for clip, (split, wanted) in zip(clips, simulated, strict=True):
        assert clip.split == split
        assert list(clip.labels) == list(REACTIONS)
        assert np.array_equal(np.float32(list(clip.labels.values())), wanted.labels)
        assert len(clip.files) == len(wanted.true_affect)
        assert [path.name for path in clip.files[:3]] == ["0.jpg", "500.jpg", "1000.jpg"]


def test_the_tables_are_written_as_the_organisers_wrote_theirs(drawn):
    with (drawn / "partition.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["[00000]", "train"]
    assert [row[-1] for row in rows[1:]] == ["train"] * 13 + ["devel"] * 2 + ["test"] * 2
    assert (drawn / "labels.csv").read_text("utf-8").splitlines()[
        0
    ] == f"File_ID,{','.join(REACTIONS)}"
    assert sorted(path.name for path in drawn.iterdir()) == [
        "README.txt",
        "feats",
        "labels.csv",
        "partition.csv",
    ]


def test_a_crop_shows_the_true_units_of_its_frame_on_its_persons_face(drawn, simulated):
    clip = simulated[0][1]
    person = (3, *clip.subject.encode())
    frame = len(clip.true_affect) // 2
    face = draw_face(clip.true_affect[frame, 9:], rng=np.random.default_rng(person), size=24)
    found = pixels(drawn / "feats" / "Faces" / "00000" / f"{500 * frame}.jpg")
    assert np.abs(found - face).mean() < 4  # what JPEG at 95 loses


def test_a_person_looks_the_same_in_all_its_clips_and_nobody_else_does(drawn, simulated):
    subjects = [clip.subject for _, clip in simulated]
    assert subjects[0] == subjects[1] != subjects[12]
    corner = {  # hair and background: nothing that an action unit moves
        number: pixels(drawn / "feats" / "Faces" / f"{number:05d}" / "0.jpg")[:3]
        for number in (0, 1, 12, 13)
    }
    assert np.abs(corner[0] - corner[1]).mean() < 1.5
    for other in (12, 13):
        assert np.abs(corner[0] - corner[other]).mean() > 5


@pytest.mark.slow
def test_the_same_arguments_give_the_same_folder_whatever_the_number_of_processes(drawn, tmp_path):
    write_drawn_reactions(tmp_path / "again", COUNTS, seed=3, size=24, workers=2)
    assert digests(tmp_path / "again") == digests(drawn)
    write_drawn_reactions(tmp_path / "other", COUNTS, seed=4, size=24)
    assert digests(tmp_path / "other") != digests(drawn)


def test_the_folder_says_that_it_is_drawn(drawn, tmp_path):
    assert "no person was recorded or rated" in (drawn / "README.txt").read_text("utf-8")
    assert is_drawn(drawn)
    assert not is_drawn(tmp_path)
    (tmp_path / "README.txt").write_bytes(b"\xff a corpus of people")
    assert not is_drawn(tmp_path)


def test_an_empty_folder_is_taken_and_one_that_holds_something_is_left_alone(drawn, tmp_path):
    write_drawn_reactions(tmp_path, (1, 1, 1), size=16)
    assert len(load_hume_reaction(tmp_path)) == 3
    before = digests(tmp_path)
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        write_drawn_reactions(tmp_path, (1, 1, 1), seed=1, size=16)
    assert digests(tmp_path) == before
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        write_drawn_reactions(tmp_path / "README.txt", (1, 1, 1), size=16)


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def failing(*words, **settings):
        drawn.append(words)
        if len(drawn) == 30:
            raise OSError("no space left")
        return draw_face(*words, **settings)

    monkeypatch.setattr("mma_mrnnet.synthetic.drawn_clips.draw_face", failing)
    with pytest.raises(OSError, match="no space left"):
        write_drawn_reactions(tmp_path / "corpus", (2, 2, 2), size=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"counts": (1, 0, 1)},
            r"three numbers from 1 on: train, validation, test; got \(1, 0, 1\)",
        ),
        ({"counts": (1, 1)}, "three numbers from 1 on"),
        ({"seed": -1}, "seed must be at least 0.*got -1, 64"),
        ({"size": 15}, "size at least 16.*got 0, 15"),
        ({"fps": 0.0}, r"fps in \(0, 1000\]"),
        ({"workers": 0}, "workers at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_drawn_reactions(tmp_path / "corpus", **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_command_draws_what_the_function_does(drawn, tmp_path, capsys, settings_kept):
    words = [
        "draw",
        str(tmp_path / "corpus"),
        "--clips",
        "13",
        "2",
        "2",
        "--size",
        "24",
        "--seed",
        "3",
    ]
    assert cli.main(words) == 0
    assert f"wrote {tmp_path / 'corpus'}: 17 clips" in capsys.readouterr().err
    assert digests(tmp_path / "corpus") == digests(drawn)
    assert cli.main(words) == 1
    assert "not an empty folder" in capsys.readouterr().err
