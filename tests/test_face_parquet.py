"""A folder of labelled crops: what is read, and that each mistake in it is named."""

import datasets
import numpy as np
import pytest

from mma_mrnnet.corpora.face_parquet import load_face_parquet
from mma_mrnnet.features.records import frame_features
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.training.datasets import FrameDataset

NAN = float("nan")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def with_value(rows, name, row, value):
    values = list(rows[name])
    values[row] = value
    return rows.remove_columns(name).add_column(name, values)


def write(folder, split, rows):
    folder.mkdir(exist_ok=True)
    rows.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.fixture
def folder(tmp_path):
    """Five crops of training, three of validation, nobody in both."""
    write(tmp_path / "faces", "train", drawn_faces(5, seed=0, size=32))
    write(tmp_path / "faces", "validation", drawn_faces(3, seed=1, size=32))
    return tmp_path / "faces"


def change(folder, split, name, row, value):
    rows = drawn_faces(5 if split == "train" else 3, seed=0 if split == "train" else 1, size=32)
    write(folder, split, with_value(rows, name, row, value))


def test_both_splits_come_with_our_columns(folder):
    splits = load_face_parquet(folder)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 5, "validation": 3}
    assert splits["train"].features == frame_features()
    drawn = drawn_faces(5, seed=0, size=32)
    assert splits["train"]["expression"][:] == drawn["expression"][:]
    assert np.array_equal(np.asarray(splits["train"][2]["image"]), np.asarray(drawn[2]["image"]))
    np.testing.assert_array_equal(
        FrameDataset(splits["train"]).intensity, FrameDataset(drawn).intensity
    )


@pytest.mark.parametrize("value", [-1, -7, None])
def test_any_negative_class_and_null_become_minus_100(folder, value):
    change(folder, "train", "expression", 2, value)
    assert load_face_parquet(folder)["train"]["expression"][2] == -100


@pytest.mark.parametrize("value", [None, NAN])
def test_null_and_nan_are_no_label(folder, value):
    change(folder, "train", "au12", 1, value)
    rows = FrameDataset(load_face_parquet(folder)["train"])
    assert rows.intensity[1, ACTION_UNITS.index(12)].isnan()


def test_a_column_without_any_label_is_read(folder):
    rows = drawn_faces(5, seed=0, size=32).remove_columns("au11").add_column("au11", [None] * 5)
    write(folder, "train", rows)
    splits = load_face_parquet(folder)
    assert splits["train"].features == frame_features()
    assert FrameDataset(splits["train"]).intensity[:, ACTION_UNITS.index(11)].isnan().all()


@pytest.mark.parametrize(
    ("split", "name", "value", "message"),
    [
        ("train", "valence", 1.5, r"train: valence must be in \[-1, 1\]; row 2 has 1.5"),
        (
            "validation",
            "arousal",
            -1.5,
            r"validation: arousal must be in \[-1, 1\]; row 2 has -1.5",
        ),
        ("train", "au12", -0.5, r"train: au12 must be in \[0, 1\]; row 2 has -0.5"),
        ("train", "au26", 5.0, r"train: au26 must be in \[0, 1\]; row 2 has 5"),
        ("train", "valence", float("inf"), "train: valence must be"),
        ("validation", "expression", 7, "validation: expression must be below 7; row 2 has 7"),
    ],
)
def test_a_label_out_of_range_is_named_with_its_split_column_and_row(
    folder, split, name, value, message
):
    change(folder, split, name, 2, value)
    with pytest.raises(ValueError, match=message):
        load_face_parquet(folder)


@pytest.mark.parametrize("splits", [("train",), ("validation",), ("train", "validation")])
def test_a_missing_column_is_named_in_whichever_file_it_is_missing(folder, splits):
    for split in splits:
        count, seed = (5, 0) if split == "train" else (3, 1)
        write(folder, split, drawn_faces(count, seed=seed, size=32).remove_columns("au04"))
    with pytest.raises(ValueError, match=rf"{splits[0]}-0.*\['au04'\] are missing"):
        load_face_parquet(folder)


def test_further_columns_are_left_out_even_where_the_splits_differ_in_them(folder):
    write(folder, "validation", drawn_faces(3, seed=1, size=32).add_column("note", ["x"] * 3))
    assert load_face_parquet(folder)["validation"].features == frame_features()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_missing_split_is_named(folder, split):
    next(folder.glob(f"{split}-*")).unlink()
    with pytest.raises(ValueError, match=f"no {split}-"):
        load_face_parquet(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no train-"):
        load_face_parquet(tmp_path / "nowhere")


def test_a_subject_in_both_splits_is_named(folder):
    change(folder, "train", "subject", 0, "person-7")
    change(folder, "validation", "subject", 1, "person-7")
    with pytest.raises(ValueError, match="1 subjects are in both splits, for example 'person-7'"):
        load_face_parquet(folder)


def test_a_damaged_file_is_named(folder):
    path = next(folder.glob("validation-*"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"validation-00000.*: not a parquet file"):
        load_face_parquet(folder)


def test_a_column_of_another_kind_is_refused(folder):
    rows = (
        drawn_faces(5, seed=0, size=32)
        .remove_columns("valence")
        .add_column("valence", ["much"] * 5)
    )
    write(folder, "train", rows)
    with pytest.raises(ValueError, match=r"faces: not readable as labelled crops: .*much"):
        load_face_parquet(folder)


def test_a_changed_file_is_seen(folder):
    for value in (0.25, 0.75):
        change(folder, "train", "valence", 0, value)
        assert load_face_parquet(folder)["train"]["valence"][0] == value


@pytest.mark.slow
def test_the_real_crops_have_the_sizes_their_readme_states(shared_faces):
    splits = load_face_parquet(shared_faces)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 28997,
        "validation": 3201,
    }
    labelled = ~FrameDataset(splits["train"]).intensity.isnan()
    assert [
        unit for unit, seen in zip(ACTION_UNITS, labelled.any(0).tolist(), strict=True) if not seen
    ] == [11, 23]
