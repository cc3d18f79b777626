"""Both models train unchanged under transformers' own Trainer."""

import math

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import Trainer, TrainingArguments

from mma_mrnnet import (
    MMAConfig,
    MMAForImageClassification,
    MMAModel,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetForVideoClassification,
)

BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
EXTRACTOR = MMAConfig(backbone_config=BACKBONE, image_size=32)


def crops(count):
    return [
        {
            "pixel_values": torch.rand(3, 32, 32),
            "valence_arousal_labels": torch.rand(2)
            if number % 2
            else torch.full((2,), float("nan")),
            "expression_labels": torch.tensor(number % 7 if number % 3 else -100),
            "action_unit_labels": torch.rand(17).round(),
        }
        for number in range(count)
    ]


def clips(count):
    return [
        {
            "affect": torch.rand(4, 26),
            "frame_mask": torch.arange(4) <= number % 4,
            "labels": torch.rand(7),
        }
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("stage", "checkpointing"), [("mma", False), ("mma", True), ("mrnn", False)]
)
def test_the_trainer_of_transformers_trains_the_model(tmp_path, stage, checkpointing):
    torch.manual_seed(0)
    model = MMAModel(EXTRACTOR)
    items, labels = crops(16), ["valence_arousal_labels", "expression_labels", "action_unit_labels"]
    if stage == "mrnn":
        model = MMAMRNNetForIntensity(
            MMAMRNNetConfig(mma_config=EXTRACTOR, num_frames=4, hidden_size=8)
        )
        items, labels = clips(16), ["labels"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        learning_rate=1e-2, label_names=labels, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=items, eval_dataset=items)
    done = trainer.train()
    assert model.is_activation_checkpointing == checkpointing
    assert math.isfinite(done.training_loss)
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    trained = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value.cpu(), before[name])
    }
    frozen = {name for name in before if name.startswith("mma.")}  # its batch norms' statistics too
    assert trained
    assert not trained & frozen
    trainer.save_model(str(tmp_path / "model"))
    loaded = type(model).from_pretrained(tmp_path / "model")
    assert all(
        torch.equal(value, model.state_dict()[name].cpu())
        for name, value in loaded.state_dict().items()
    )


@pytest.mark.parametrize(
    "kind", [MMAForImageClassification, MMAMRNNetForIntensity, MMAMRNNetForVideoClassification]
)
def test_the_trainer_finds_columns_and_labels_by_itself_and_scores_one_array(tmp_path, kind):
    torch.manual_seed(0)
    stage_1 = kind is MMAForImageClassification
    model = kind(
        EXTRACTOR if stage_1 else MMAMRNNetConfig(mma_config=EXTRACTOR, num_frames=4, hidden_size=8)
    )
    items = [{"pixel_values": torch.rand(3, 32, 32), "labels": number % 7} for number in range(8)]
    items = [{**item, "clip": number} for number, item in enumerate(items if stage_1 else clips(8))]
    shapes = []

    def score(evaluated):
        shapes.append((evaluated.predictions.shape, evaluated.label_ids.shape))
        return {}

    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, train_dataset=items, eval_dataset=items, compute_metrics=score
    )
    assert math.isfinite(trainer.train().training_loss)
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    assert shapes == [((8, 7), (8,) if stage_1 else (8, 7))]


def test_the_trainer_writes_our_card_with_its_record_of_the_training(tmp_path):
    model = MMAMRNNetForIntensity(
        MMAMRNNetConfig(mma_config=EXTRACTOR, num_frames=4, hidden_size=8, simulated_labels=True)
    )
    arguments = TrainingArguments(
        output_dir=tmp_path, max_steps=1, report_to="none", use_cpu=True, save_strategy="no"
    )
    trainer = Trainer(model, arguments, train_dataset=clips(4))
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(dataset_tags="me/clips", model_name="mine")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.datasets) == ("unknown", ["me/clips"])
    assert {"generated_from_trainer", "action-units"} <= set(card.data.tags)
    assert "Stage 2 learnt from a *simulator*" in card.text
    assert "must not be used for" in card.text
    assert "- learning_rate: 5e-05" in card.text
    assert "More information needed" not in card.text
