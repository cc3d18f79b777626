"""Objectives over two processes are those of one process on the whole batch, to 1e-6 of their size."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

SCRIPT = textwrap.dedent(
    """
    import json, sys, torch
    from types import SimpleNamespace
    from accelerate import Accelerator
    from mma_mrnnet import MMAConfig, MMAMRNNetConfig, MMAMRNNetForIntensity, MMAModel
    from mma_mrnnet.training.loop import _global_loss

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == int(sys.argv[2]), accelerator.num_processes
    shares = {1: [slice(0, 10)], 2: [slice(0, 7), slice(7, 10)]}[accelerator.num_processes]
    mine = shares[accelerator.process_index]
    backbone = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    results = {}
    for name in ("mma", "soft", "hard", "pearson", "ccc", "mse"):
        torch.manual_seed(0)
        config = MMAConfig(backbone_config=backbone, image_size=32)
        if name in ("mma", "soft", "hard"):
            config.co_annotation = "off" if name == "mma" else name
            model = MMAModel(config)
            batch = {
                "pixel_values": torch.rand(10, 3, 32, 32),
                "valence_arousal_labels": torch.rand(10, 2),
                "expression_labels": torch.tensor([0, -100, 2, 3, -100, -100, 6, -100, -100, 1]),
                "action_unit_labels": torch.rand(10, 17),
            }
            batch["valence_arousal_labels"][[1, 3, 8]] = float("nan")
            batch["action_unit_labels"][torch.rand(10, 17) < 0.6] = float("nan")
            batch["action_unit_labels"][[0, 9]] = float("nan")  # expressions alone
            batch["action_unit_labels"][[1, 7], 9], batch["action_unit_labels"][[1, 7], 15] = 1.0, 1.0  # and a smile's
            names = ("valence_arousal", "expression_logits", "action_unit_logits")
        else:
            model = MMAMRNNetForIntensity(
                MMAMRNNetConfig(mma_config=config, num_frames=4, hidden_size=8, dense_size=6, intensity_loss=name)
            )
            batch = {
                "affect": torch.rand(10, 4, 26),
                "frame_mask": torch.arange(4) < torch.tensor([4, 3, 2, 1, 4, 4, 2, 3, 1, 4]).unsqueeze(-1),
                "labels": torch.rand(10, 7),
            }
            batch["labels"][3:6, 2] = float("nan")
            names = ("logits",)
        model = model.double().eval()  # eval: batch norm's own statistics would be those of each share
        batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
        model = accelerator.prepare(model)
        share = {key: value[mine] for key, value in batch.items()}
        loss = _global_loss(accelerator, SimpleNamespace(loss_names=names), model, share)
        accelerator.backward(loss * accelerator.num_processes)
        plain = accelerator.unwrap_model(model)
        gradient = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None])
        results[name] = {"loss": loss.item(), "gradient": gradient.tolist()}
    if accelerator.is_main_process:
        with open(sys.argv[1], "w") as file:
            json.dump(results, file)
    accelerator.end_training()
    """
)


def results_of(processes, folder):
    script, out = folder / "share.py", folder / f"{processes}.json"
    script.write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        str(processes),
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    words = [*launch, *(["--multi_gpu"] if processes > 1 else ["--cpu"]), str(script), str(out), str(processes)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_loss_and_gradient_over_two_unequal_shares_are_those_of_one_batch(tmp_path):
    one, two = results_of(1, tmp_path), results_of(2, tmp_path)
    for name, expected in one.items():
        wanted, got = torch.tensor(expected["gradient"]), torch.tensor(two[name]["gradient"])
        assert two[name]["loss"] == pytest.approx(expected["loss"], rel=1e-6), name
        assert wanted.norm() > 0
        assert (got - wanted).norm() / wanted.norm() < 1e-6, name
