"""The recurrent part against ridge regressions on the same simulated clips, without favour.

    python benchmarks/recurrent_against_ridge.py RUN [RUN ...]

A RUN is the folder of `train.py --stage mrnn --data simulated[:DOMAIN]`. Its clips are simulated
again, and two ridge regressions on clip summaries of what the GRU reads are fitted: on all training
clips of the run, and on its reactions alone. All three are scored on the test clips, over the
reactions and over all clips. Intervals of differences are 95 %, paired, over people. Adds each run
to `benchmarks/results/recurrent_against_ridge.json`, in place of an earlier one of the same name.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from mma_mrnnet import MMAMRNNetForIntensity, MMAMRNNetVideoProcessor
from mma_mrnnet.files import write_json
from mma_mrnnet.hub.checkpoints import load_checkpoint
from mma_mrnnet.metrics import People, area_under_roc, pearson_scores, rounded
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.baselines import Summaries, fit_targets, make_ridge, summarize_clips
from mma_mrnnet.training.clip_corpora import input_of, load_clips, read_corpus
from mma_mrnnet.training.datasets import ClipCollator, ClipDataset
from mma_mrnnet.training.reports import LENGTH_BINS, rows_of_kind

RESULT = Path(__file__).parent / "results" / "recurrent_against_ridge.json"
BATCH = 256
SETTINGS = (
    *("epochs", "learning_rate", "batch_size", "hidden_size", "dropout"),
    *("clips", "quiet_share", "short_share", "affect_transform", "quiet_weight"),
)
"""Settings of a run that are recorded."""


@torch.inference_mode()
def estimate(
    model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor, rows: ClipDataset
) -> Tensor:
    """Return the network's intensities (N, K) of all clips."""
    collate, parts = ClipCollator(processor), []
    for first in range(0, len(rows), BATCH):
        batch = collate(rows.__getitems__([*range(first, min(first + BATCH, len(rows)))]))
        parts.append(model(affect=batch["affect"], frame_mask=batch["frame_mask"]).intensities)
    return torch.cat(parts)


def compare(run: Path) -> dict:
    """Score the network of a run and both ridge regressions on its test clips."""
    arguments = json.loads((run / "results.json").read_text("utf-8"))["arguments"]
    args = TrainArguments(**arguments)
    model, processor = load_checkpoint(run / "model")
    splits = load_clips(read_corpus(args), args, input_of(model, processor)).splits
    train, test = splits["train"].rows, splits["test"].rows
    reactions = rows_of_kind(test, "reaction")
    summaries = summarize_clips(model, train, [*range(len(train))])
    shown = rows_of_kind(train, "reaction").numpy()
    values = summarize_clips(model, test, [*range(len(test))]).values
    own = Summaries(summaries.values[shown], summaries.labels[shown])
    estimates = {"network": estimate(model, processor, test)}
    for name, clips in (("ridge on all clips", summaries), ("ridge on reactions", own)):
        estimates[name] = torch.from_numpy(fit_targets(make_ridge, clips)(values)).float()
    lengths, labels = torch.from_numpy(test.lengths), test.labels
    everything = torch.ones_like(reactions)
    result = {
        "data": args.data,
        "pooling": args.temporal_pooling,
        "seed": args.seed,
        "arguments": {name: arguments[name] for name in SETTINGS},
        "train_clips": len(train),
        "train_reactions": len(own.labels),
    }
    for what, chosen in (("reactions", reactions), ("all", everything)):
        people = People([test.subjects[row] for row in chosen.nonzero().flatten().tolist()])
        result[what] = {"clips": int(chosen.sum())}
        for name, found in estimates.items():
            scores = pearson_scores(found[chosen], labels[chosen])
            result[what][name] = {
                "mean_pearson": float(scores.mean()),
                "pearson": dict(zip(model.config.label_names, scores.tolist(), strict=True)),
            }
            if name == "network":
                continue
            gain = people.mean_interval(
                lambda weights, found=found, chosen=chosen: (
                    pearson_scores(estimates["network"][chosen], labels[chosen], weights)
                    - pearson_scores(found[chosen], labels[chosen], weights)
                )
            )
            result[what][name]["network_gains"] = [gain.value, gain.low, gain.high]
    result["by_length"] = {}
    for low, high in LENGTH_BINS:
        chosen = reactions & (lengths >= low) & (lengths <= high)
        if chosen.sum() >= 50:
            result["by_length"][f"{low}-{high}"] = {
                name: float(pearson_scores(found[chosen], labels[chosen]).mean())
                for name, found in estimates.items()
            }
    if not reactions.all():
        result["quiet_against_reaction_auc"] = {
            name: float(area_under_roc(found.mean(1), reactions))
            for name, found in estimates.items()
        }
    return result


def main(runs: list[Path]) -> None:
    """Compare each run and write the results."""
    content = {"what": __doc__.splitlines()[0], "runs": {}}
    if RESULT.is_file():
        content = json.loads(RESULT.read_text("utf-8"))
    for run in runs:
        content["runs"][run.name] = found = rounded(compare(run))
        write_json(RESULT, content)
        print(run.name, json.dumps({key: found[key] for key in ("reactions", "all")}, indent=1))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
