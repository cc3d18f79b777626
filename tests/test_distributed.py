"""Objectives over two processes are those of one process on the whole batch, to 1e-6 of their size."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from mma_mrnnet import MMAConfig, MMAModel, MMAMRNNetVideoProcessor

SCRIPT = textwrap.dedent(
    """
    import json, os, sys, torch
    from types import SimpleNamespace
    from accelerate import Accelerator
    from mma_mrnnet import MMAConfig, MMAMRNNetConfig, MMAMRNNetForIntensity, MMAModel
    from mma_mrnnet.training.updates import backward

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == int(sys.argv[2]), accelerator.num_processes
    micro_batch_size = int(sys.argv[3])
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
        loss = backward(accelerator, SimpleNamespace(loss_names=names), model, share, micro_batch_size)
        plain = accelerator.unwrap_model(model)
        gradient = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None])
        results[name] = {"loss": loss.item(), "gradient": gradient.tolist()}
    if accelerator.is_main_process:
        with open(sys.argv[1], "w") as file:
            json.dump(results, file)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    os._exit(0)  # the interpreter's own end may abort while threads of the process group run
    """
)


def launch(*words, processes):
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        str(processes),
    ]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    command += [*(["--multi_gpu"] if processes > 1 else ["--cpu"]), *words]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def results_of(processes, folder, micro_batch_size=0):
    script, out = folder / "share.py", folder / f"{processes}-{micro_batch_size}.json"
    script.write_text(SCRIPT)
    done = launch(str(script), str(out), str(processes), str(micro_batch_size), processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def check_equal(one, other):
    for name, expected in one.items():
        wanted, got = torch.tensor(expected["gradient"]), torch.tensor(other[name]["gradient"])
        assert other[name]["loss"] == pytest.approx(expected["loss"], rel=1e-6), name
        assert wanted.norm() > 0
        assert (got - wanted).norm() / wanted.norm() < 1e-6, name


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return results_of(1, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [0, 3])
def test_loss_and_gradient_over_two_unequal_shares_are_those_of_one_batch(
    one_process, tmp_path, micro_batch_size
):
    """Shares of 7 and 3; in micro-batches of 3 the first takes three passes and the second one."""
    check_equal(one_process, results_of(2, tmp_path, micro_batch_size))


@pytest.mark.slow
@pytest.mark.parametrize("strict", ["False", "True"], ids=["adam", "strict routing"])
def test_two_processes_end_with_the_weights_of_one(tmp_path, strict):
    """Two processes with batches of 16 take the steps of one with batches of 32, but for float32 rounding."""
    backbone = {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    }
    MMAModel(MMAConfig(backbone_config=backbone, image_size=32)).save_pretrained(tmp_path / "mma")
    MMAMRNNetVideoProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "mma")
    words = [
        "--stage",
        "mrnn",
        "--data",
        "simulated",
        "--mma",
        str(tmp_path / "mma"),
        "--clips",
        "128",
        "32",
        "32",
    ]
    words += ["--hidden_size", "8", "--dense_size", "6", "--learning_rate", "0.01", "--epochs", "2"]
    # Without dropout, whose random numbers each process draws for itself.
    words += ["--short_share", "0.5", "--strict_routing", strict, "--dropout", "0"]
    for processes, options in (
        (1, ["--batch_size", "32"]),
        (2, ["--batch_size", "16", "--micro_batch_size", "6"]),
    ):
        done = launch("-m", "mma_mrnnet.train", *words, *options, "--output", str(tmp_path / str(processes)),
                      "--expect_processes", str(processes), processes=processes)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        load_file(tmp_path / str(processes) / "best" / "model.safetensors") for processes in (1, 2)
    )
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-4


DIFFERENT = textwrap.dedent(
    """
    import os, sys
    from mma_mrnnet.training.datasets import FrameDataset
    from mma_mrnnet.train import main

    whole = FrameDataset.fingerprint
    FrameDataset.fingerprint = lambda rows: whole(rows) + os.environ["RANK"]  # as if one could not read a file
    sys.exit(main(sys.argv[1:]))
    """
)


@pytest.mark.slow
def test_processes_that_hold_different_data_stop(tmp_path):
    (tmp_path / "different.py").write_text(DIFFERENT)
    words = [
        "--stage",
        "mma",
        "--data",
        "drawn",
        "--items",
        "40",
        "--image_size",
        "32",
        "--batch_size",
        "8",
    ]
    words += [
        "--layer_type",
        "basic",
        "--embedding_size",
        "8",
        "--hidden_sizes",
        "8",
        "16",
        "--depths",
        "1",
        "1",
    ]
    done = launch(
        str(tmp_path / "different.py"), *words, "--output", str(tmp_path / "run"), processes=2
    )
    assert done.returncode != 0
    assert done.stderr.count("train: the processes do not see the same data") == 2
    assert not (tmp_path / "run" / "model").exists()
