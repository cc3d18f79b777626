"""Items and batches of both stages: labels, what "no label" is, augmentation, padding."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from torch.utils.data import DataLoader

from mma_mrnnet.features.records import action_unit_column, clip_features, frame_features
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.synthetic.reactions import as_dataset, simulate_reactions
from mma_mrnnet.training.augmentation import AUGMENTATIONS
from mma_mrnnet.training.datasets import ClipCollator, ClipDataset, FrameCollator, FrameDataset

NAN = float("nan")


@pytest.fixture
def faces():
    return drawn_faces(12, seed=3, size=32)


@pytest.fixture
def clips():
    lengths = (3, 0, 6, 1)
    columns = {
        "clip_id": [f"clip-{length}" for length in lengths],
        "subject": ["a", "a", "b", "c"],
        "kind": ["reaction", "quiet", "reaction", "reaction"],
        "affect": [np.random.rand(length, 26).astype(np.float32) for length in lengths],
        "labels": [[0.1 * row] * 6 + [NAN] for row in range(4)],
    }
    return ClipDataset.from_rows(datasets.Dataset.from_dict(columns, features=clip_features(7)))


# Frames ------------------------------------------------------------------------------------------------------------


def test_a_frame_has_the_rows_image_and_labels_in_the_order_of_the_units(faces):
    rows = FrameDataset(faces)
    assert len(rows) == 12
    for index in (0, 5, 11):
        item, row = rows[index], faces[index]
        assert item["crop"].dtype == torch.uint8
        np.testing.assert_array_equal(item["crop"].numpy(), np.asarray(row["image"]))
        assert item["expression_labels"].item() == row["expression"]
        wanted = [row["valence"], row["arousal"]]
        np.testing.assert_array_equal(
            item["valence_arousal_labels"].numpy(), np.array(wanted, np.float32)
        )
        units = np.array([row[action_unit_column(unit)] for unit in ACTION_UNITS], np.float32)
        np.testing.assert_array_equal(item["action_unit_intensities"].numpy(), units)


def test_no_label_is_nan_or_minus_100(faces):
    rows = FrameDataset(faces)
    assert rows.intensity.isnan().any()
    assert rows.valence_arousal.isnan().any()
    assert (rows.expression == -100).any()
    known = rows.intensity[~rows.intensity.isnan()]
    assert known.min() >= 0
    assert known.max() <= 1


def test_a_choice_of_units_gives_those_columns(faces):
    some, every = FrameDataset(faces, action_units=(4, 12)), FrameDataset(faces)
    columns = [ACTION_UNITS.index(4), ACTION_UNITS.index(12)]
    np.testing.assert_array_equal(some.intensity.numpy(), every.intensity[:, columns].numpy())


def test_the_collator_turns_intensities_into_probabilities_of_presence(tiny_processor):
    # Twice the present intensity of 0.4 is certain: 0.2 / 0.8, 0.4 / 0.8, and 1 from 0.8 on.
    item = {
        "crop": torch.zeros(32, 32, 3, dtype=torch.uint8),
        "valence_arousal_labels": torch.tensor([0.5, NAN]),
        "expression_labels": torch.tensor(-100),
        "action_unit_intensities": torch.tensor([0.0, 0.2, 0.4, 0.8, 1.0, NAN]),
    }
    batch = FrameCollator(tiny_processor)([item, item])
    assert batch["action_unit_labels"][0, :5].tolist() == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])
    assert batch["action_unit_labels"][:, 5].isnan().all()
    assert batch["valence_arousal_labels"][1, 1].isnan()
    assert batch["expression_labels"].tolist() == [-100, -100]
    assert torch.equal(batch["pixel_values"], torch.full((2, 3, 32, 32), -1.0))


def test_without_augmentation_the_crops_are_the_processors(faces, tiny_processor):
    rows = FrameDataset(faces)
    items = [rows[0], rows[1]]
    wanted = tiny_processor.scale(torch.stack([item["crop"] for item in items]))
    assert torch.equal(FrameCollator(tiny_processor)(items)["pixel_values"], wanted)
    assert not torch.equal(
        FrameCollator(tiny_processor, augmentations=AUGMENTATIONS)(items)["pixel_values"], wanted
    )


def test_a_batch_is_what_the_extractor_takes(faces, tiny_processor, tiny_mma):
    rows = FrameDataset(faces)
    batch = FrameCollator(tiny_processor, augmentations=AUGMENTATIONS)(
        [rows[index] for index in range(12)]
    )
    assert tiny_mma(**batch).loss.isfinite()


def test_a_kind_of_augmentation_that_there_is_not_is_refused(tiny_processor):
    with pytest.raises(ValueError, match=r"among mirror, .*, compression; got rotate"):
        FrameCollator(tiny_processor, augmentations=["mirror", "rotate"])


def augmented(rows, processor, batches):
    collate = FrameCollator(processor, augmentations=AUGMENTATIONS)
    return torch.cat(
        [collate([rows[index] for index in batch])["pixel_values"] for batch in batches]
    )


def test_an_augmented_crop_depends_on_seed_epoch_and_item_alone(faces, tiny_processor):
    rows = FrameDataset(faces, seed=4)
    rows.begin_epoch(2)
    whole = augmented(rows, tiny_processor, [range(12)])
    torch.rand(7)  # whatever else was drawn in between
    for size in (1, 5):
        batches = [range(start, min(start + size, 12)) for start in range(0, 12, size)]
        assert torch.equal(augmented(rows, tiny_processor, batches), whole)
    assert torch.equal(
        augmented(rows, tiny_processor, [[7, 3, 3]]), whole[[7, 3, 3]]
    )  # drawn twice: twice the same
    resumed = FrameDataset(faces, seed=4)
    resumed.begin_epoch(2)
    assert torch.equal(augmented(resumed, tiny_processor, [range(12)]), whole)


@pytest.mark.parametrize(("seed", "epoch"), [(4, 3), (5, 2), (2, 4)])
def test_another_epoch_or_seed_changes_every_augmented_crop(faces, tiny_processor, seed, epoch):
    pictures = []
    for numbers in ((4, 2), (seed, epoch)):
        rows = FrameDataset(faces, seed=numbers[0])
        rows.begin_epoch(numbers[1])
        pictures.append(augmented(rows, tiny_processor, [range(12)]))
    assert all(not torch.equal(*pair) for pair in zip(*pictures, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_workers_know_the_epoch_that_began(faces, tiny_processor, workers):
    rows = FrameDataset(faces, seed=4)
    collate = FrameCollator(tiny_processor, augmentations=AUGMENTATIONS)
    loader = DataLoader(rows, batch_size=5, num_workers=workers, collate_fn=collate)
    for epoch in (1, 0):
        rows.begin_epoch(epoch)
        loaded = torch.cat([batch["pixel_values"] for batch in loader])
        assert torch.equal(loaded, augmented(rows, tiny_processor, [range(12)]))


# Clips -------------------------------------------------------------------------------------------------------------


def test_a_clip_has_its_real_frames_and_its_labels(clips):
    assert len(clips) == 4
    assert [clips[index]["affect"].shape for index in range(4)] == [
        (3, 26),
        (0, 26),
        (6, 26),
        (1, 26),
    ]
    assert clips[2]["affect"].dtype == np.float32
    np.testing.assert_allclose(clips[2]["labels"], [0.2] * 6 + [NAN], rtol=1e-6)
    assert clips.kinds == ["reaction", "quiet", "reaction", "reaction"]
    assert clips.lengths.tolist() == [3, 0, 6, 1]


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [2, 0], [3], [2, 2]])
def test_several_clips_at_once_are_the_clips_one_by_one(clips, indices):
    together = clips.__getitems__(indices)
    assert len(together) == len(indices)
    for item, index in zip(together, indices, strict=True):
        np.testing.assert_array_equal(item["affect"], clips[index]["affect"])
        np.testing.assert_array_equal(item["labels"], clips[index]["labels"])


@pytest.mark.parametrize(
    "chosen", [[3, 0, 2], range(1, 3), []], ids=["picked", "a stretch", "none"]
)
def test_clips_chosen_from_a_data_set_are_those_clips(clips, chosen):
    rows = datasets.Dataset.from_dict(
        {
            "clip_id": [str(number) for number in range(4)],
            "subject": [""] * 4,
            "kind": clips.kinds,
            "affect": [item["affect"] for item in clips.__getitems__([0, 1, 2, 3])],
            "labels": clips.labels.numpy(),
        },
        features=clip_features(7),
    )
    part = ClipDataset.from_rows(rows.select(chosen))
    assert part.clip_ids == [str(number) for number in chosen]
    assert part.lengths.tolist() == [[3, 0, 6, 1][number] for number in chosen]
    assert part.labels.shape == (len(chosen), 7)
    for item, number in zip(map(part.__getitem__, range(len(part))), chosen, strict=True):
        np.testing.assert_array_equal(item["affect"], clips[number]["affect"])
        np.testing.assert_array_equal(item["labels"], clips[number]["labels"])


def test_a_batch_of_clips_is_padded_by_the_processor(clips, tiny_processor, tiny_model):
    items = [clips[index] for index in range(4)]
    batch = ClipCollator(tiny_processor)(items)
    values, frame_mask = tiny_processor.pad([item["affect"] for item in items])
    assert torch.equal(batch["affect"], values)
    assert torch.equal(batch["frame_mask"], frame_mask)
    assert frame_mask.sum(1).tolist() == [
        3,
        0,
        4,
        1,
    ]  # six frames are thinned to the processor's four
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"][:, 6].isnan().all()
    assert tiny_model(**batch).loss.isfinite()


def test_the_collator_thins_as_the_processor_does_and_leaves_the_warning_to_others(
    tiny_processor, caplog
):
    long = np.arange(10 * 26, dtype=np.float32).reshape(10, 26)
    batch = ClipCollator(tiny_processor)([{"affect": long, "labels": np.zeros(7)}] * 2)
    assert caplog.text == ""  # training would repeat it with every batch
    assert torch.equal(batch["affect"], tiny_processor.pad([long, long])[0])
    assert batch["affect"][0, :, 0].tolist() == [
        0,
        3 * 26,
        6 * 26,
        9 * 26,
    ]  # evenly, both ends kept


def test_the_two_formats_name_every_output():
    common = ["image", "subject", "source", "valence", "arousal", "expression"]
    assert list(frame_features((1, 12))) == [*common, "au01", "au12"]
    assert clip_features(7)["labels"].length == 7
    assert tuple(clip_features(7)["affect"].shape) == (None, 26)


@pytest.mark.parametrize("chosen", [range(3, 8), [7, 0, 3], range(0)], ids=["slice", "any", "none"])
def test_clips_are_the_rows_whatever_part_of_a_table_they_are(chosen):
    made = simulate_reactions(9, seed=0)
    rows = concatenate_datasets([as_dataset(made[:4]), as_dataset(made[4:])])  # two chunks
    clips = ClipDataset.from_rows(rows.select(chosen))
    wanted = [made[index] for index in chosen]
    assert [clip["affect"].tolist() for clip in clips.__getitems__([*range(len(clips))])] == [
        clip.affect.tolist() for clip in wanted
    ]
    assert clips.labels.tolist() == [clip.labels.tolist() for clip in wanted]


def test_items_of_a_clip_data_set_are_copies_and_it_travels_to_another_process():
    clips = ClipDataset.from_rows(as_dataset(simulate_reactions(50, seed=0)))
    first = clips[3]["affect"].copy()
    clips[3]["affect"][:] = 0.0  # a copy: nobody else's numbers
    sent = pickle.dumps(clips)
    received = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert (received[3]["affect"] == first).all()
