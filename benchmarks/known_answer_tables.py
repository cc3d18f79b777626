"""Stage 2 on tables of features whose best possible score is known.

    python benchmarks/known_answer_tables.py RUNS [--clips 1000] [--seeds 3] [TRAIN_WORDS]

Clips of 8 to 30 frames have 12 smooth random features. Each of six targets depends on another
property of the frames: a mean, a maximum, a deviation, a change from the first to the last third, a
product of two means, and the share of frames above a threshold. A target is 0.8 of its standardized
property and 0.6 of noise, so nothing can reach a Pearson above .80. Trains by `train.py` with its
defaults and TRAIN_WORDS. Ridge and boosted trees are the run's own baselines. Adds to
`benchmarks/results/known_answer_tables.json`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.train import main as train

RESULT = Path(__file__).parent / "results" / "known_answer_tables.json"
FEATURES, CEILING = 12, 0.8


def make_clip(rng: np.random.Generator) -> np.ndarray:
    """Return (L, 12) features: a level for each clip, and smooth noise around it."""
    frames = np.empty((int(rng.integers(8, 31)), FEATURES))
    now = rng.normal(size=FEATURES)
    for frame in frames:
        now = 0.7 * now + 0.7 * rng.normal(size=FEATURES)
        frame[:] = now
    return frames * rng.uniform(0.5, 1.5, FEATURES) + 0.7 * rng.normal(size=FEATURES)


def properties(frames: np.ndarray) -> list[float]:
    """Return the six properties of a clip."""
    third = max(len(frames) // 3, 1)
    return [
        frames[:, 0].mean(),
        frames[:, 1].max(),
        frames[:, 2].std(),
        frames[-third:, 3].mean() - frames[:third, 3].mean(),
        frames[:, 4].mean() * frames[:, 5].mean(),
        (frames[:, 6] > 1).mean(),
    ]


def write_corpus(folder: Path, clips: int, seed: int) -> None:
    """Write `clips` training clips, and 500 each for validation and test, as CSV tables."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", clips), ("validation", 500), ("test", 500)):
        (folder / split).mkdir(parents=True)
        frames = [make_clip(rng) for _ in range(count)]
        found = np.array([*map(properties, frames)])
        scores = CEILING * (found - found.mean(0)) / found.std(0)
        scores += (1 - CEILING**2) ** 0.5 * rng.normal(size=scores.shape)
        rows = pd.DataFrame(0.5 + scores / 8, columns=[f"target_{n}" for n in range(6)]).clip(0, 1)
        rows.insert(0, "file_name", [f"{number}.csv" for number in range(count)])
        rows.to_csv(folder / split / "metadata.csv", index=False)
        for number, clip in enumerate(frames):
            table = pd.DataFrame(clip, columns=[f"feature_{n}" for n in range(FEATURES)])
            table.to_csv(folder / split / f"{number}.csv", index=False)


def main() -> None:
    """Train on each seed and write the scores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    args, args.words = parser.parse_known_args()
    args.words = [word for word in args.words if word != "--"]
    content = {"what": __doc__.splitlines()[0], "ceiling": CEILING, "runs": []}
    if RESULT.is_file():
        content = json.loads(RESULT.read_text("utf-8"))
    for seed in range(args.seeds):
        corpus = args.runs / f"corpus-{args.clips}-{seed}"
        if not corpus.exists():
            write_corpus(corpus, args.clips, seed)
        run = args.runs / f"run-{args.clips}-{seed}-{'-'.join(args.words).replace('--', '')}"
        words = ["--stage", "mrnn", "--data", f"clips:{corpus}", "--output", str(run)]
        assert train([*words, "--seed", str(seed), *args.words]) == 0
        results = json.loads((run / "results.json").read_text("utf-8"))
        row = {"clips": args.clips, "seed": seed, "words": args.words}
        row["network"] = results["test"]["reactions"]["mean_pearson"]
        row["network_by_target"] = results["test"]["reactions"]["pearson"]
        for name in ("ridge", "trees"):
            row[name] = results["baselines"]["test"][name]["mean_pearson"]
        content["runs"].append(row)
        write_json(RESULT, rounded(content))
        print(json.dumps(row))


if __name__ == "__main__":
    main()
