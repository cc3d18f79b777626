"""How much of the simulated labels a face can tell: ridge regression on trajectories.

    python benchmarks/simulator_ceiling.py CHECKPOINT

Features are mean, maximum, minimum, standard deviation and the means of the first and last thirds
of each affect channel, true and as reported. Validation chooses the penalty. Scores are of test
clips with a reaction. Repeats the split of `results_mrnn.json` and writes `results_ceiling.json`
beside it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import pearson_scores, rounded
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.synthetic.extractor_noise import noise_from_errors
from mma_mrnnet.synthetic.reactions import SimulatedClip, hume_like_splits
from mma_mrnnet.training.extractor_errors import read_errors

PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def features(affect: np.ndarray) -> np.ndarray:
    """Summarise a clip: (L, 26) -> (1 + 6 * 26,) with a leading 1 and the length at the end."""
    third = max(len(affect) // 3, 1)
    parts = (
        affect.mean(0),
        affect.max(0),
        affect.min(0),
        affect.std(0),
        affect[:third].mean(0),
        affect[-third:].mean(0),
    )
    return np.concatenate([[1.0], *parts, [len(affect) / 30]])


def design(clips: list[SimulatedClip], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, F) and labels (N, 7) of the clips with a reaction."""
    chosen = [clip for clip in clips if clip.kind == "reaction"]
    return np.stack([features(getattr(clip, kind)) for clip in chosen]), np.stack(
        [clip.labels for clip in chosen]
    )


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Fit weights (F, K) on standardised features."""
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def score(splits: dict[str, list[SimulatedClip]], kind: str) -> dict[str, float]:
    """Return the test Pearson of each reaction and their mean."""
    data = {name: design(clips, kind) for name, clips in splits.items()}
    center, spread = data["train"][0].mean(0), data["train"][0].std(0) + 1e-6
    center[0], spread[0] = 0.0, 1.0
    data = {name: ((x - center) / spread, y) for name, (x, y) in data.items()}

    def pearson(split: str, weights: np.ndarray) -> torch.Tensor:
        x, y = data[split]
        return pearson_scores(torch.from_numpy(x @ weights), torch.from_numpy(y).double())

    weights = [ridge(*data["train"], penalty) for penalty in PENALTIES]
    best = max(weights, key=lambda candidate: float(pearson("validation", candidate).mean()))
    scores = pearson("test", best)
    return {**dict(zip(REACTIONS, scores.tolist(), strict=True)), "mean": float(scores.mean())}


def main(folder: Path) -> None:
    """Score the split of the checkpoint and write the result beside its own."""
    arguments = json.loads((folder / "results_mrnn.json").read_text("utf-8"))["arguments"]
    domain = arguments["data"].partition(":")[2] or None
    measured = domain_named(domain).needs_errors
    splits = hume_like_splits(
        arguments["seed"],
        tuple(arguments["clips"]),
        quiet_share=arguments["quiet_share"],
        short_share=arguments["short_share"],
        fps=arguments["sampling_fps"],
        domain=domain,
        noise=noise_from_errors(read_errors(str(folder))) if measured else None,
    )
    result = {
        "what": "ridge regression on summaries of the trajectories, "
        "simulated test clips with a reaction",
        "command": f"python benchmarks/simulator_ceiling.py {folder}",
        "test_clips": sum(clip.kind == "reaction" for clip in splits["test"]),
        "true_affect": score(splits, "true_affect"),
        "reported_affect": score(splits, "affect"),
    }
    write_json(folder / "results_ceiling.json", rounded(result))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
