"""The benchmark that leaves people out: nobody scored is in his own fold's training, scores as worked out by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from mma_mrnnet.features.records import frame_features
from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.synthetic.drawn_faces import drawn_faces

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
HAPPY, NEUTRAL = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")
TINY = "--image_size 32 --layer_type basic --embedding_size 8 --hidden_sizes 8 16 --depths 1 1 --epochs 1 --batch_size 8"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))  # the scripts import their sibling `machine`
    try:
        spec = importlib.util.spec_from_file_location(
            "leave_people_out", FOLDER / "leave_people_out.py"
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("leave_people_out", None)


def write(folder, split, rows):
    """Drawn faces as `(source, subject, expression, image's name)` say."""
    drawn = drawn_faces(len(rows), seed=len(split), size=32)
    columns = {name: drawn[name][:] for name in drawn.features if name != "image"}
    columns |= {"source": [row[0] for row in rows], "subject": [row[1] for row in rows]}
    columns["expression"] = [row[2] for row in rows]
    raw = drawn.cast_column("image", datasets.Image(decode=False))["image"][:]
    columns["image"] = [
        {"bytes": image["bytes"], "path": row[3]} for image, row in zip(raw, rows, strict=True)
    ]
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_dict(columns, features=frame_features())
    table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.fixture
def faces(tmp_path):
    """Four people of london in two poses each, one smile unlabelled; three neutral ones; bent photos and others."""
    train, validation = [], []
    for number in range(4):
        rows = train if number < 3 else validation
        who = f"london-{number}"
        smile = -1 if number == 0 else HAPPY
        rows += [
            ("london", who, NEUTRAL, f"{who}-neutral.jpg"),
            ("london", who, smile, f"{who}-smiling.jpg"),
        ]
        rows += [("warp", who, 3, f"{who}-bent.jpg"), ("render", who, -1, f"{who}-render.jpg")]
    train += [
        ("congress", f"congress-{number}", NEUTRAL, f"congress-{number}.jpg") for number in range(3)
    ]
    train += [
        ("congress", "congress-9", -1, "congress-9.jpg"),
        ("warp", "congress-8", NEUTRAL, "congress-8-bent.jpg"),
    ]
    train += [("render", f"ict-{number}", number % 7, f"ict-{number}.jpg") for number in range(8)]
    validation += [
        ("render", f"ict-{number}", number % 7, f"ict-{number}.jpg") for number in range(20, 26)
    ]
    write(tmp_path / "faces", "train", train)
    write(tmp_path / "faces", "validation", validation)
    return tmp_path / "faces"


def subjects_in(folder):
    return {
        name
        for path in folder.glob("*.parquet")
        for name in pq.read_table(path)["subject"].to_pylist()
    }


def test_real_photos_in_both_poses_are_scored_and_made_images_are_not(bench, faces):
    photos = bench.scored_photos(faces)
    assert len(photos) == 8 + 3
    assert {photo.source for photo in photos.values()} == {"london", "congress"}
    assert sum(photo.smiling for photo in photos.values()) == 4
    weak = photos["london-0-smiling.jpg"]  # no label: its name says how it was posed
    assert (weak.smiling, weak.labelled) == (True, False)


def test_folds_divide_the_scored_people_alone_and_evenly(bench, faces):
    photos = list(bench.scored_photos(faces).values())
    folds = bench.folds_of(photos, 2)
    assert set.union(*folds) == {photo.subject for photo in photos}
    assert not set.intersection(*folds)
    assert [sum(name.startswith("london") for name in fold) for fold in folds] == [2, 2]
    assert folds == bench.folds_of(photos[::-1], 2)  # whatever the order of the files
    for count in (1, 8):
        with pytest.raises(ValueError, match="from 2 to the number of people, 7"):
            bench.folds_of(photos, count)


def test_every_row_of_the_people_left_out_is_gone_from_both_splits(bench, faces, tmp_path):
    counts = bench.write_rest(faces, tmp_path / "rest", {"london-0", "london-3"})
    assert counts == {"kept": 3 * 4 + 4 + 3 + 2 + 8 + 6 - 8, "taken_out": 8}
    assert subjects_in(faces) - subjects_in(tmp_path / "rest") == {"london-0", "london-3"}
    assert [path.name for path in sorted((tmp_path / "rest").iterdir())] == [
        "train-00000-of-00001.parquet",
        "validation-00000-of-00001.parquet",
    ]


def photo(bench, name, source, smiling, margin, labelled=True):
    return bench.Photo(f"{name}-{smiling}", name, source, smiling, labelled, margin)


def test_scores_are_those_worked_out_by_hand(bench):
    photos = [
        photo(bench, "a", "london", True, 0.9),
        photo(bench, "a", "london", False, -0.9),
        photo(bench, "b", "london", True, -0.2, labelled=False),  # missed
        photo(bench, "b", "london", False, -0.5),
        photo(bench, "c", "congress", False, 0.4),  # missed
        photo(bench, "d", "congress", False, -0.8),
    ]
    found = bench.summary(photos)
    everything = found["scores"]["all"]
    # One of two smiles and three of four neutral faces; pairs in order: 4 of 4 for 0.9, 3 of 4 for -0.2.
    assert everything["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert everything["auc"]["value"] == pytest.approx(7 / 8)
    assert (everything["smiling"], everything["neutral"], everything["people"]) == (2, 4, 4)
    assert (everything["smiling_read_so"], everything["neutral_read_so"]) == (1, 3)
    # Resampled people: of a and b, and of c and d, two each. Both b and both c is the worst, a and d the best.
    assert everything["balanced_accuracy"]["low"] == pytest.approx((0 + 2 / 4) / 2)
    assert everything["balanced_accuracy"]["high"] == pytest.approx(1.0)
    assert found["scores"]["with a label"]["balanced_accuracy"]["value"] == pytest.approx(
        (1 + 3 / 4) / 2
    )
    assert found["scores"]["neutral from london"]["balanced_accuracy"]["value"] == pytest.approx(
        (1 / 2 + 1) / 2
    )
    assert found["scores"]["neutral from congress"]["neutral"] == 2
    assert "neutral from canada" not in found["scores"]  # nobody there
    assert [(miss["subject"], miss["margin"]) for miss in found["misses"]] == [
        ("c", 0.4),
        ("b", -0.2),
    ]


def test_a_photo_whose_two_outputs_are_equal_counts_as_neutral(bench):
    assert photo(bench, "a", "london", False, 0.0).is_right
    assert not photo(bench, "a", "london", True, 0.0).is_right


def test_a_folder_without_smiles_or_files_is_named(bench, tmp_path):
    with pytest.raises(ValueError, match="no train-"):
        bench.scored_photos(tmp_path)
    for split in ("train", "validation"):
        write(
            tmp_path / "calm",
            split,
            [("congress", f"{split}-{number}", NEUTRAL, None) for number in range(2)],
        )
    with pytest.raises(ValueError, match="found 4 of one kind"):
        bench.scored_photos(tmp_path / "calm")


@pytest.mark.slow
def test_the_whole_benchmark_leaves_people_out_and_is_resumed_fold_by_fold(
    bench, faces, tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "RESULT", tmp_path / "smiles.json")
    out, words = tmp_path / "out", TINY.split()
    result = bench.main(faces, out, 2, words)
    held_out = [
        set(json.loads((out / f"fold-{fold}" / "scores.json").read_text())["held_out"])
        for fold in (1, 2)
    ]
    for fold, people in enumerate(held_out, 1):
        assert people
        assert not people & subjects_in(out / f"fold-{fold}" / "data")
        trained_on = json.loads(
            (out / f"fold-{fold}" / "run" / "model" / "results_mma.json").read_text()
        )
        assert trained_on["arguments"]["data"] == str(out / f"fold-{fold}" / "data")
    assert sum(fold["photos"] for fold in result["folds"]) == 11
    assert result["scores"]["all"]["smiling"] == 4
    assert np.isfinite(result["scores"]["all"]["auc"]["value"])
    assert json.loads((tmp_path / "smiles.json").read_text())["command"].endswith(f"-- {TINY}")

    monkeypatch.setattr(
        bench, "train", lambda *_: pytest.fail("a fold that is done was trained again")
    )
    assert bench.main(faces, out, 2, words)["scores"] == result["scores"]
    with pytest.raises(ValueError, match="of another training or other people"):
        bench.main(faces, out, 2, [*words, "--seed", "1"])


@pytest.mark.slow
def test_a_training_that_fails_stops_the_benchmark(bench, tmp_path):
    with pytest.raises(RuntimeError, match="training failed"):
        bench.train(tmp_path / "nowhere", tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_words_behind_the_dashes_are_train_pys(bench):
    own, words = bench.parted(["faces", "--folds", "2", "--out", "runs", "--", "--epochs", "3"])
    assert (str(own.folder), own.folds, str(own.out), words) == (
        "faces",
        2,
        "runs",
        ["--epochs", "3"],
    )
    assert bench.parted(["faces", "--out", "runs"])[1] == []
