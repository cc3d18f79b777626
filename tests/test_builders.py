"""Made-up corpora as `datasets` builders: the very rows of simulator and pen, cached, streamed and exported."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Image, load_dataset
from huggingface_hub import DatasetCard

from mma_mrnnet.corpora import draw_frames
from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.synthetic import builders
from mma_mrnnet.synthetic.builders import (
    DrawnFaces,
    SimulatedReactions,
    dataset_card,
    export_dataset,
)
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise
from mma_mrnnet.synthetic.reactions import as_dataset, hume_like_splits

COUNTS = (12, 5, 4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def reactions(cache):
    return SimulatedReactions(cache, counts=COUNTS, seed=3, quiet_share=0.3, short_share=0.4)


@pytest.fixture(scope="module")
def faces(cache):
    return DrawnFaces(cache, items=40, seed=2, size=32)


def bits(rows):
    """All columns, images as their files' bytes, NaN equal to NaN."""
    if "image" in rows.column_names:
        rows = rows.cast_column("image", Image(decode=False))
    return [repr(row) for row in rows.with_format(None)]


# Rows --------------------------------------------------------------------------------------------------------------


def test_simulated_reactions_are_the_simulators_bit_for_bit(reactions):
    splits = reactions.load()
    expected = hume_like_splits(3, COUNTS, quiet_share=0.3, short_share=0.4)
    assert list(splits) == list(expected)
    for split, clips in expected.items():
        own = as_dataset(clips)
        assert splits[split].data.table.combine_chunks().equals(own.data.table.combine_chunks())
        assert splits[split].features == own.features
        assert splits[split].info.description == own.info.description


@pytest.mark.parametrize("one_kind", [False, True])
def test_drawn_faces_are_those_that_training_draws(cache, one_kind):
    splits = DrawnFaces(cache, items=10, seed=2, size=32, one_kind=one_kind).load()
    data = "drawn:partial" if one_kind else "drawn"
    expected = draw_frames(data, ACTION_UNITS, items=10, seed=2, image_size=32).splits
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 10, "validation": 2}
    for split, rows in expected.items():
        assert bits(splits[split]) == bits(rows)
        assert splits[split].features == rows.features
    assert (set(splits["train"]["source"]) == {"drawn"}) != one_kind


def test_a_stream_gives_the_same_rows(reactions, faces):
    for builder, split in ((reactions, "validation"), (faces, "train")):
        streamed, stored = builder.as_streaming_dataset(split), builder.load()[split]
        for ours, theirs in zip(streamed, stored.with_format(None), strict=True):
            assert ours.keys() == theirs.keys()
            for column, value in theirs.items():
                np.testing.assert_array_equal(ours[column], value)


def test_a_domain_has_its_own_rate_and_people_and_a_split_of_none_is_left_out(cache):
    rate = SimulatedReactions(cache, counts=(0, 3, 0), domain="rate")
    assert rate.fps == 3
    splits = rate.load()
    assert list(splits) == ["validation"]
    assert "frames a second: 3" in splits["validation"].info.description
    (expected,) = [
        clips for clips in hume_like_splits(0, (0, 3, 0), domain="rate").values() if clips
    ]
    np.testing.assert_array_equal(
        splits["validation"].with_format("numpy")[0]["affect"], expected[0].affect
    )


def test_the_measured_domain_takes_an_extractors_errors(cache):
    splits = SimulatedReactions(
        cache, counts=(0, 0, 3), domain="measured", noise=ExtractorNoise(unit_floor=0.5)
    ).load()
    assert splits["test"].with_format("numpy")[0]["affect"][:, 9:].mean() > 0.4


# The cache ---------------------------------------------------------------------------------------------------------


def test_what_was_built_is_read_again_and_changed_settings_are_noticed(tmp_path, monkeypatch):
    def build(**settings):
        return SimulatedReactions(
            str(tmp_path), **{"counts": COUNTS, "seed": 1, **settings}
        ).load()["test"]

    first = build()
    made = []
    simulate = builders.hume_like_splits

    def counting(seed, counts, **settings):
        made.append(sum(counts))
        return simulate(seed, counts, **settings)

    monkeypatch.setattr(builders, "hume_like_splits", counting)
    assert build().data.table.equals(first.data.table)
    assert sum(made) == 0  # settings are checked on no clips, and nothing more is made
    for change in (
        {"seed": 2},
        {"counts": (12, 5, 3)},
        {"quiet_share": 0.5},
        {"fps": 3.0},
        {"domain": "people"},
    ):
        made.clear()
        assert not build(**change).data.table.equals(first.data.table), change
        assert sum(made) > 0


def test_changed_code_is_noticed_and_two_corpora_share_no_folder(cache, monkeypatch):
    own = SimulatedReactions(cache).cache_dir
    assert own != DrawnFaces(cache).cache_dir
    monkeypatch.setattr(builders, "_digest_of_code", lambda: "another")
    assert SimulatedReactions(cache).cache_dir != own


# Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "settings", "message"),
    [
        (SimulatedReactions, {"counts": (3, 2)}, r"counts must be three whole numbers.*\(3, 2\)"),
        (SimulatedReactions, {"counts": (0, 0, 0)}, "not all 0"),
        (SimulatedReactions, {"counts": (3, -1, 2)}, "from 0 on"),
        (SimulatedReactions, {"quiet_share": 1.5}, "quiet_share and short_share in"),
        (SimulatedReactions, {"domain": "moon"}, "got 'moon'"),
        (
            SimulatedReactions,
            {"domain": "measured"},
            "noise is given for a domain of measured errors",
        ),
        (SimulatedReactions, {"fps": 0}, "fps of simulated clips"),
        (DrawnFaces, {"items": 0}, "items must be a whole number.*got 0"),
        (DrawnFaces, {"size": 8}, "size one from 16 on; got 2000, 0, 8"),
        (DrawnFaces, {"seed": -1}, "seed one from 0 on"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_made(
    cache, builder, settings, message
):
    with pytest.raises(ValueError, match=message):
        builder(cache, **settings)


# The folder and its card -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", ["reactions", "faces"])
def test_an_exported_folder_is_loaded_by_load_dataset_bit_for_bit(corpus, request, tmp_path):
    builder = request.getfixturevalue(corpus)
    folder = export_dataset(builder, tmp_path / "repository")
    loaded, own = load_dataset(str(folder), cache_dir=str(tmp_path / "cache")), builder.load()
    assert list(loaded) == list(own)
    for split in own:
        assert loaded[split].features == own[split].features
        assert bits(loaded[split]) == bits(own[split])
        assert (
            pq.read_metadata(folder / "data" / f"{split}-00000-of-00001.parquet").num_rows
            == own[split].num_rows
        )
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "cache",
        "repository",
    ]


def test_a_folder_that_holds_something_is_left_alone(reactions, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        export_dataset(reactions, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("corpus", ["reactions", "faces"])
def test_a_card_has_valid_metadata_says_that_nobody_is_in_it_and_has_no_holes(corpus, request):
    builder = request.getfixturevalue(corpus)
    text = dataset_card(builder, builder.load())
    card = DatasetCard(text, ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == "n<1K"
    assert [file["split"] for file in card.data.to_dict()["configs"][0]["data_files"]] == list(
        builder.load()
    )
    assert re.search("No person was recorded or rated|No photographs, no person", card.text)
    assert not re.search(r"\bNone\b|\{%|%\}|\{\{|Undefined|\bnan\b|\n\n\n", card.text)
    for column in builder.info.features:
        assert f"`{column}`" in card.text or column.startswith("au")
    for table in re.findall(r"(?:^\|.*\|\n)+", card.text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_cards_numbers_are_counted_in_the_rows(reactions, faces):
    splits = reactions.load()
    text = dataset_card(reactions, splits)
    train = splits["train"].with_format("numpy")
    quiet = sum(kind != "reaction" for kind in train["kind"])
    lengths = sorted(len(row["affect"]) for row in train)
    assert 0 < quiet < 12
    middle = f"{(lengths[5] + lengths[6]) / 2:g}"
    assert (
        f"| `train` | 12 | {len(set(train['subject']))} | {quiet} | {lengths[0]}, {middle}, {lengths[-1]} |"
        in text
    )
    labels = np.stack([row["labels"] for row in train if row["kind"] == "reaction"])[
        :, REACTIONS.index("Fear")
    ]
    assert f"| `train` | Fear | {labels.mean():.3f} | {labels.std():.3f} |" in text
    faces_of = faces.load()
    text, table = (
        dataset_card(faces, faces_of),
        faces_of["train"].select_columns(["expression", "valence", "au12"])[:],
    )
    labelled = sum(value >= 0 for value in table["expression"])
    valued, units = (
        sum(not np.isnan(value) for value in table[name]) for name in ("valence", "au12")
    )
    assert f"| `train` | 40 | {labelled} | {valued} | {units} |" in text


def test_the_cards_code_makes_the_rows_again(reactions, monkeypatch, cache):
    (code,) = re.findall(
        r"```python\n(.*?)```", dataset_card(reactions, reactions.load()), re.DOTALL
    )
    found = {}
    exec(code, found)
    assert bits(found["splits"]["test"]) == bits(reactions.load()["test"])


@pytest.mark.parametrize("settings", [{"items": 5.5}, {"seed": 0.5}, {"size": 20.5}])
def test_drawn_faces_come_in_whole_numbers(settings, tmp_path):
    with pytest.raises(ValueError, match="whole number"):
        DrawnFaces(cache_dir=str(tmp_path), **settings)


def test_simulated_clips_come_in_whole_numbers(tmp_path):
    with pytest.raises(ValueError, match="three whole numbers"):
        SimulatedReactions(cache_dir=str(tmp_path), counts=(3.5, 1, 1))
