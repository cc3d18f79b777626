"""Rows of frame corpora kept between runs: read once, read again when a file of the corpus changed."""

import csv
import logging
import os

import datasets
import pytest
from PIL import Image

from mma_mrnnet.corpora import CORPORA, FrameReader, frame_cache, load_frames
from mma_mrnnet.corpora.frame_cache import cached_frames, signature
from mma_mrnnet.corpora.labelled_folder import load_labelled_folder
from mma_mrnnet.features.records import frame_features

ROWS = [
    ["a.jpg", "p", "0.5", "train"],
    ["b.jpg", "p", "0.25", "train"],
    ["deep/c.jpg", "q", "0.75", "validation"],
]


def write_metadata(folder, rows):
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file_name", "subject", "valence", "split"], *rows])


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Three images, one of them in a deeper folder; the cache is elsewhere."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    for name, _, _, _ in ROWS:
        Image.new("RGB", (8, 8)).save(folder / name)
    write_metadata(folder, ROWS)
    return folder


@pytest.fixture
def calls():
    return []


@pytest.fixture
def read(calls):
    def load(folder, action_units):
        calls.append(folder)
        return load_labelled_folder(folder, action_units)

    return load


def valence(splits):
    return splits["train"]["valence"][:]


def test_a_corpus_is_read_once_and_its_rows_are_the_readers(corpus, read, calls):
    made = load_labelled_folder(corpus)
    for _ in range(2):
        kept = cached_frames(read, corpus)
        assert list(kept) == ["train", "validation"]
        for split, rows in kept.items():
            assert rows.features == frame_features()
            assert rows.cache_files  # memory-mapped
            plain = [
                split.cast_column("image", datasets.Image(decode=False))
                for split in (rows, made[split])
            ]
            for name in ("image", "subject", "source", "valence", "expression"):
                assert plain[0][name][:] == plain[1][name][:]
    assert len(calls) == 1


def change_a_label_in_place(folder):
    before = (folder / "metadata.csv").stat()
    write_metadata(folder, [["a.jpg", "p", "0.1", "train"], *ROWS[1:]])
    assert (folder / "metadata.csv").stat().st_size == before.st_size
    os.utime(folder / "metadata.csv", ns=(0, before.st_mtime_ns + 1))


def remove_an_image(folder):
    (folder / "a.jpg").unlink()


def remove_an_image_unseen_by_the_clock(folder):
    before = folder.stat()
    remove_an_image(folder)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_a_label_in_place, [pytest.approx(0.1), 0.25]),
        (remove_an_image, [0.25]),
        (remove_an_image_unseen_by_the_clock, [0.25]),
        (lambda folder: (folder / "a.jpg").rename(folder / "z.jpg"), [0.25]),
    ],
    ids=["label", "image gone", "image gone, same time", "image renamed"],
)
def test_a_change_is_seen_at_the_next_call(corpus, read, calls, change, expected):
    write_metadata(corpus, [["a.jpg", "p", "0.5", "train"], *ROWS[1:]])
    assert valence(cached_frames(read, corpus)) == [0.5, 0.25]
    change(corpus)
    assert valence(cached_frames(read, corpus)) == expected
    assert valence(cached_frames(read, corpus)) == expected
    assert len(calls) == 2


def test_an_image_that_comes_into_a_deeper_folder_is_seen(corpus, read):
    write_metadata(corpus, [*ROWS, ["deep/late.jpg", "p", "1", "train"]])
    assert valence(cached_frames(read, corpus)) == [0.5, 0.25]
    Image.new("RGB", (8, 8)).save(corpus / "deep" / "late.jpg")
    assert valence(cached_frames(read, corpus)) == [0.5, 0.25, 1.0]


def test_an_image_that_is_drawn_anew_needs_no_reading_since_rows_only_name_it(corpus, read, calls):
    cached_frames(read, corpus)
    Image.new("RGB", (9, 9)).save(corpus / "a.jpg")
    kept = cached_frames(read, corpus)
    assert len(calls) == 1
    assert kept["train"][0]["image"].size == (9, 9)


def test_what_other_readers_made_is_not_taken(corpus, read, calls, monkeypatch):
    cached_frames(read, corpus)
    monkeypatch.setattr(frame_cache, "_digest_of_readers", lambda: "a later release")
    cached_frames(read, corpus)
    assert len(calls) == 2


def test_a_damaged_file_of_the_cache_is_read_again_from_the_corpus(
    corpus, read, calls, tmp_path, caplog
):
    cached_frames(read, corpus)
    for path in (tmp_path / "cache").rglob("validation.arrow"):
        path.write_bytes(path.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        assert valence(cached_frames(read, corpus)) == [0.5, 0.25]
    assert len(calls) == 2
    assert "damaged" in caplog.text
    cached_frames(read, corpus)
    assert len(calls) == 2


def test_without_a_place_for_the_cache_the_rows_stay_in_memory(corpus, read, tmp_path, caplog):
    (tmp_path / "cache").write_bytes(b"a file")
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        kept = cached_frames(read, corpus)
    assert valence(kept) == [0.5, 0.25]
    assert "cannot be kept" in caplog.text


def test_a_link_that_leads_back_ends(corpus):
    before = signature(corpus)
    (corpus / "deep" / "back").symlink_to(corpus, target_is_directory=True)
    assert signature(corpus) == before


def test_the_readers_complaints_come_through(corpus, read, tmp_path):
    write_metadata(corpus, [["a.jpg", "p", "7", "train"]])
    with pytest.raises(ValueError, match=r"metadata\.csv:2: valence must be in \[-1, 1\]"):
        cached_frames(read, corpus)
    with pytest.raises(ValueError, match=r"nowhere"):
        cached_frames(read, tmp_path / "nowhere")


def test_corpora_by_name_come_from_the_cache(corpus, monkeypatch, calls):
    assert valence(load_frames(f"labelled_folder:{corpus}").splits) == [0.5, 0.25]

    def load_labelled_folder(folder):
        raise AssertionError("read a second time")

    monkeypatch.setitem(CORPORA, "labelled_folder", FrameReader(load_labelled_folder))
    assert valence(load_frames(f"labelled_folder:{corpus}").splits) == [0.5, 0.25]


def test_another_choice_of_units_is_read_anew(corpus, read, calls):
    for units in ((1, 2), (1, 14), (1, 2)):
        kept = cached_frames(read, corpus, units)
        assert kept["train"].features == frame_features(units)
    assert len(calls) == 2
