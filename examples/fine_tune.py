"""Fine-tune the shipped checkpoint on clips with targets of your own: a minute on one CPU core.

    python examples/fine_tune.py [--clips FOLDER]

Without `--clips` it draws clips of cartoon faces first. Their scores show that training works and
say nothing about people. FOLDER has the layout of docs/own_data.md: train/ and validation/, each
with videos and a metadata.csv.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModel,
    AutoVideoProcessor,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from mma_mrnnet import MMAMRNNetForIntensity, MMAMRNNetVideoProcessor, predict_video
from mma_mrnnet.corpora.clip_folder import load_clip_folder
from mma_mrnnet.hub.checkpoints import pretrained_folder
from mma_mrnnet.metrics import mean_absolute_errors, pearson_scores
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.synthetic.drawn_faces import draw_face
from mma_mrnnet.training.calibration import affine_calibration
from mma_mrnnet.video.writing import write_video

DRAWN_TARGETS = {"delight": (6, 12, 25), "wonder": (1, 2, 5, 26), "worry": (4, 15, 17)}
"""The "ratings" of the drawn clips, and the action units that show each."""


def draw_clips(folder: Path, counts: dict[str, int]) -> None:
    """Write clips of 4 s and their metadata.csv; a rating is the strength that its units reach."""
    for split, count in counts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        with (folder / split / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "subject", *DRAWN_TARGETS])
            for number in range(count):
                rng = np.random.default_rng([number, *split.encode()])
                strengths = rng.uniform(size=len(DRAWN_TARGETS))
                ratings = strengths * (rng.uniform(size=len(DRAWN_TARGETS)) < 0.6)
                clip = folder / split / f"{number:03d}.mp4"
                write_video(clip, draw_frames(ratings, rng), fps=2)
                table.writerow([clip.name, f"{split}-{number}", *ratings.round(3)])


def draw_frames(ratings: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw 8 frames of one person; the units of each target rise to its rating and fall again."""
    person, frames = int(rng.integers(2**32)), []
    peaks = rng.uniform(2, 6, len(ratings))
    for frame in range(8):
        units = np.zeros(len(ACTION_UNITS))
        for shown, rating, peak in zip(DRAWN_TARGETS.values(), ratings, peaks, strict=True):
            for unit in shown:
                units[ACTION_UNITS.index(unit)] = rating * np.exp(-(((frame - peak) / 2) ** 2))
        face = draw_face(units, rng=np.random.default_rng(person), size=128)
        frames.append(np.pad(face, ((32, 32), (64, 64), (0, 0)), mode="edge"))
    return frames


def read_clips(
    folder: Path, model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor
) -> tuple[dict[str, list[dict[str, torch.Tensor]]], list[str]]:
    """Return each split as the model takes it, and the names of the targets.

    The extractor stays fixed, so it reads each clip once.
    """
    splits: dict[str, list[dict[str, torch.Tensor]]] = {"train": [], "validation": [], "test": []}
    clips = load_clip_folder(folder)
    for clip in clips:
        prediction = predict_video(clip.path, model, processor)
        if prediction.error is not None:
            print(f"left out: {prediction.file}: {prediction.error}")
            continue
        frames = prediction.frames.loc[prediction.frames["face"], model.config.input_names]
        affect, frame_mask = processor.pad([frames.to_numpy(np.float32)])  # (1, T, 26), (1, T)
        row = {"affect": affect[0], "frame_mask": frame_mask[0]}
        row["labels"] = torch.tensor(
            list(clip.labels.values()), dtype=torch.float32
        )  # NaN: no rating
        splits[clip.split].append(row)
    return splits, list(clips[0].labels)


def fine_tune(
    clips: list[dict[str, torch.Tensor]], targets: list[str], out: Path, *, made_up: bool
) -> Trainer:
    """Train the shipped weights with a new last layer, one output a target, by `Trainer`."""
    model = MMAMRNNetForIntensity.from_pretrained(
        pretrained_folder(),
        id2label=dict(enumerate(targets)),
        label2id={name: index for index, name in enumerate(targets)},
        ignore_mismatched_sizes=True,  # last layer and calibration are new; transformers lists them
        relative_labels=False,  # ratings of two clips compare
        simulated_labels=made_up,
    )
    settings = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=40,
        per_device_train_batch_size=32,  # the loss is a correlation over the batch: 16 at the least
        dataloader_drop_last=len(clips) >= 32,
        dataloader_pin_memory=torch.cuda.is_available(),
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        label_names=["labels"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Trainer(model=model, args=settings, train_dataset=clips)
    trainer.remove_callback(PrinterCallback)  # the scores below say more than its one line of times
    trainer.train()
    return trainer


def calibrate_and_score(model: MMAMRNNetForIntensity, clips: list[dict[str, torch.Tensor]]) -> None:
    """Calibrate each output as train.py does, and print how well it follows the ratings."""
    model.to("cpu").eval()
    held_out = {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}
    labels = held_out.pop("labels")  # (N, K)
    with torch.inference_mode():
        model.set_calibration(*affine_calibration(model(**held_out).intensities, labels))
        predicted = model(**held_out).intensities
    scores, errors = pearson_scores(predicted, labels), mean_absolute_errors(predicted, labels)
    constant = mean_absolute_errors(labels.nanmean(0).expand_as(labels), labels)
    print("target       Pearson  mean absolute error  the same of a constant, the clips' mean")
    for name, *row in zip(model.config.label_names, scores, errors, constant, strict=True):
        print("{:12} {:7.2f}  {:19.2f}  {:39.2f}".format(name, *map(float, row)))


def main() -> None:
    """Draw or take clips, fine-tune, score, save, load again and predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, help="your own clips; drawn ones if not given")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/fine_tune"), help="where everything is written"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # networks this small lose time to more
    set_seed(0)

    folder = args.clips or args.out / "clips"
    if args.clips is None:
        draw_clips(folder, {"train": 64, "validation": 24})
    shipped = MMAMRNNetForIntensity.from_pretrained(pretrained_folder()).eval()
    processor = MMAMRNNetVideoProcessor.from_pretrained(pretrained_folder())
    splits, targets = read_clips(folder, shipped, processor)

    model = fine_tune(
        splits["train"], targets, args.out / "trainer", made_up=args.clips is None
    ).model
    kind = " of cartoons: no people" if args.clips is None else ""
    print(f"{len(splits['validation'])} validation clips{kind}")
    calibrate_and_score(model, splits["validation"])

    model.save_pretrained(args.out / "model")
    processor.save_pretrained(args.out / "model")
    loaded = AutoModel.from_pretrained(args.out / "model").eval()
    clip = next(clip.path for clip in load_clip_folder(folder) if clip.split == "validation")
    prediction = predict_video(clip, loaded, AutoVideoProcessor.from_pretrained(args.out / "model"))
    print(clip, ", ".join(f"{name} {value:.2f}" for name, value in prediction.intensities.items()))
    print(f"saved {args.out / 'model'}")


if __name__ == "__main__":
    main()
