"""Planted differences: what is put into a study, and what its tables say of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mma_mrnnet.analysis.ablation import ablate
from mma_mrnnet.analysis.study import parse_study
from mma_mrnnet.metrics import pearson_scores
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.datasets import ClipCollator

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "ablations"


@pytest.fixture
def scripts(monkeypatch):
    """The benchmark's modules, which its worker processes import by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import planted
    import run

    yield planted, run
    for name in ("planted", "run", "pixels"):
        sys.modules.pop(name, None)


def test_noise_leaves_nine_tenths_of_each_correlation(scripts):
    rng = np.random.default_rng(0)
    labels = rng.standard_normal((40_000, 2))
    outputs = np.stack(
        [labels[:, 0] + rng.standard_normal(40_000), 3 * labels[:, 1]], 1
    )  # r = .707 and 1
    noisy = scripts[0].add_noise(outputs, seed=1)
    scores = pearson_scores(torch.from_numpy(noisy), torch.from_numpy(labels))
    assert scores.tolist() == pytest.approx([0.9 * 0.5**0.5, 0.9], abs=0.01)


def test_labels_leak_into_padding_and_nowhere_else(scripts):
    collator = ClipCollator(MMAMRNNetVideoProcessor(num_frames=3))
    items = [
        {"affect": np.full((1, 4), 0.5, np.float32), "labels": np.array([0.1, 0.2], np.float32)},
        {"affect": np.full((3, 4), 0.5, np.float32), "labels": np.array([0.3, np.nan], np.float32)},
    ]
    batch = scripts[0].LeakingCollator(collator)(items)
    assert batch["affect"][0, 1:].tolist() == [pytest.approx([0.1, 0.2, 0.0, 0.0])] * 2
    real = torch.cat([batch["affect"][0, :1], batch["affect"][1]])
    assert bool((real == 0.5).all())
    assert torch.equal(batch["labels"].nan_to_num(), collator(items)["labels"].nan_to_num())


def test_a_study_shows_what_was_planted(scripts, tmp_path, tiny_mma, tiny_processor):
    planted, run = scripts
    for part in (tiny_mma, tiny_processor):
        part.save_pretrained(tmp_path / "mma")
    words = f"--data simulated --mma {tmp_path / 'mma'} --clips 64 32 40 --epochs 1 --batch_size 32"
    words = [*words.split(), "--hidden_size", "4", "--learning_rate", "0.01"]
    study = run.extend_study(parse_study(tmp_path / "study", words, None, ["simulated:lengths"]))
    assert ablate(study, questions=["planted"], seeds=2, jobs=2) == {}
    run.report_with_noise(study, {}, 2)
    summary = json.loads((study.folder / "ablations.json").read_text())
    rows = {row["name"]: row for row in summary["variants"]}
    assert set(rows) == {"full", "padded", "leak-padded", "leak-mask", "noise"}
    # Padding that the mask hides changes no bit, whatever it holds.
    assert rows["leak-mask"]["mean_pearson"] == rows["full"]["mean_pearson"]
    assert rows["leak-mask"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "seeds": 2}
    assert rows["leak-padded"]["mean_pearson"] != rows["padded"]["mean_pearson"]
    assert rows["leak-mask"]["transfer"] == {}
    expected = pytest.approx(-0.1 * rows["full"]["mean"], abs=1e-4)
    assert rows["noise"]["expected_difference"] == expected
    table = planted.make_planted_table(planted.StudySummary.from_json(summary)).splitlines()
    assert table[2].endswith("| known to be |")
    assert next(line for line in table if line.startswith("| `leak-mask`")).endswith("exactly 0 |")


def test_what_leaks_is_compared_with_the_full_model_if_that_is_padded(scripts, tmp_path):
    words = ["--data", "simulated", "--mma", "x", "--temporal_pooling", "padded"]
    study = scripts[1].extend_study(parse_study(tmp_path / "study", words, None, []))
    against = {variant.name: variant.against for variant in study.variants}
    assert "padded" not in against
    assert against["leak-padded"] == "full"
