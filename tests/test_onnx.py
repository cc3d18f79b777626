"""ONNX exports: the same numbers as PyTorch's, a folder that needs neither PyTorch nor the package, refusals."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mma_mrnnet import (
    MMAConfig,
    MMAModel,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetVideoProcessor,
)
from mma_mrnnet.cli import main
from mma_mrnnet.hub import onnx as onnx_export
from mma_mrnnet.hub.checkpoints import CheckpointError
from mma_mrnnet.hub.onnx import export_onnx
from mma_mrnnet.model.video_processing_mma_mrnnet import LENGTH_POLICIES, kept_indices

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
SIDE = 32


def saved(model, folder, frames=4, **settings):
    """A checkpoint as training leaves it."""
    model.eval().save_pretrained(folder)
    MMAMRNNetVideoProcessor(
        size={"height": SIDE, "width": SIDE}, num_frames=frames, **settings
    ).save_pretrained(folder)
    return folder


def feature_model(folder, **settings):
    """A calibrated model of three features on scales of their own; its checkpoint is in the folder."""
    torch.manual_seed(1)
    settings = {"num_frames": 4, "hidden_size": 8, "dense_size": 6} | settings
    model = MMAMRNNetForIntensity(
        MMAMRNNetConfig(feature_names=["AU12_r", "pose_Tz", "gaze_0_x"], **settings)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # biases too, which start at 0
    model.set_feature_scaling(torch.tensor([1.0, 600.0, 0.0]), torch.tensor([0.5, 40.0, 0.2]))
    model.set_calibration(torch.rand(7) + 0.5, torch.rand(7) * 0.1)
    saved(model, folder, model.config.num_frames)
    return model


def features(clips, frames):
    return torch.tensor([1.0, 600.0, 0.0]) + torch.tensor([0.5, 40.0, 0.2]) * torch.randn(
        clips, frames, 3
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The model of some settings, and the folder of its checkpoint `trained` and its export `onnx`; made once."""
    made = {}

    def export(**settings):
        key = tuple(settings.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("features")
            made[key] = feature_model(folder / "trained", **settings), folder
            export_onnx(folder / "trained", folder / "onnx")
        return made[key]

    return export


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_session(opened, affect, frame_mask):
    return opened.run(
        ["intensities", "logits"], {"affect": affect.numpy(), "frame_mask": frame_mask.numpy()}
    )


def script_of(folder):
    spec = importlib.util.spec_from_file_location("run_onnx", folder / "run_onnx.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A stage-2 model with an extractor of which the GRU reads two channels, and its exported folder."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("whole")
    extractor = MMAConfig(
        backbone_config=dict(BACKBONE), image_size=SIDE, supervised_action_units=[1, 2, 4]
    )
    config = MMAMRNNetConfig(
        mma_config=extractor,
        num_frames=4,
        hidden_size=8,
        dense_size=6,
        channels=["valence_arousal", "action_units"],
        simulated_labels=True,
    )
    model = MMAMRNNetForIntensity(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    saved(model, folder / "trained")
    return model, export_onnx(folder / "trained", folder / "onnx")


def crops(count, side=SIDE):
    return np.random.randint(0, 256, (count, side, side, 3), dtype=np.uint8)


# The same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"temporal_pooling": "mask", "num_hidden_layers": 2, "output_activation": "linear"},
        {"temporal_pooling": "padded"},
        {"temporal_pooling": "last", "num_frames": 2},
        {"temporal_pooling": "mean", "num_frames": 1},
        {"temporal_pooling": "attention", "num_frames": 5},
        {"temporal_pooling": "statistics", "num_frames": 7},
    ],
    ids=lambda settings: settings["temporal_pooling"],
)
def test_clips_of_every_length_get_pytorchs_intensities_in_batches_of_every_size(
    exported, settings
):
    model, folder = exported(**settings)
    opened = session(folder / "onnx" / "intensities.onnx")
    most = model.config.num_frames
    for lengths in ([most], [0], [1, most], [most, 0, 1, 1, most]):
        frame_mask = torch.arange(most) < torch.tensor(lengths).unsqueeze(1)
        affect = torch.where(frame_mask.unsqueeze(-1), features(len(lengths), most), 0.0)
        with torch.no_grad():
            wanted = model(affect=affect, frame_mask=frame_mask)
        found = run_session(opened, affect, frame_mask)
        for ours, theirs in zip(found, (wanted.intensities, wanted.logits), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)
        if settings["temporal_pooling"] != "padded":
            for junk in (float("nan"), float("inf"), 1e30):
                noisy = torch.where(frame_mask.unsqueeze(-1), affect, junk)
                for ours, again in zip(found, run_session(opened, noisy, frame_mask), strict=True):
                    assert (ours == again).all()


@pytest.mark.slow
def test_crops_get_pytorchs_affect_and_intensities_through_the_script(whole):
    model, folder = whole
    script, settings = script_of(folder), json.loads((folder / "settings.json").read_text())
    extractor, clips = (
        session(folder / settings[part]["file"]) for part in ("extractor", "intensities")
    )
    script.CHUNK = 2  # so that chunks of two and of one are run
    processor = MMAMRNNetVideoProcessor.from_pretrained(folder.parent / "trained")
    for count in (1, 3, 4, 7):
        images = crops(count)
        found = script.extract_affect(images, extractor, settings["extractor"])
        with torch.no_grad():
            affect = model.mma(processor.scale(images)).affect
            values, frame_mask = processor.pad([affect])
            wanted = model(affect=values, frame_mask=frame_mask).intensities[0]
        np.testing.assert_allclose(found, affect.numpy(), atol=1e-5)
        np.testing.assert_allclose(
            script.predict_intensities(found, clips, settings["intensities"]),
            wanted.numpy(),
            atol=1e-5,
        )
    assert script.extract_affect(crops(0), extractor, settings["extractor"]).shape == (0, 26)


def test_the_script_keeps_the_frames_that_the_processor_keeps():
    script = script_of(ROOT / "examples")
    for policy in LENGTH_POLICIES:
        for most in (1, 2, 3, 4, 29, 30, 31):
            for length in (0, 1, 2, 3, 5, 29, 30, 31, 32, 59, 60, 61, 88, 145, 146, 450, 899):
                ours = script.choose_frames(length, most, policy)
                assert ours.tolist() == kept_indices(length, most, policy).tolist(), (
                    policy,
                    most,
                    length,
                )


def test_a_model_whose_numbers_differ_is_not_written(tmp_path, monkeypatch):
    feature_model(tmp_path / "trained")
    monkeypatch.setattr(
        onnx_export._GRU, "_reorder_gates", lambda self, weight: weight
    )  # PyTorch's order of the gates
    with pytest.raises(
        CheckpointError, match=r"intensities\.onnx: its outputs differ from PyTorch's by"
    ):
        export_onnx(tmp_path / "trained", tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


# The folder --------------------------------------------------------------------------------------------------------


def test_the_folder_holds_both_models_their_numbers_and_the_script(whole):
    _, folder = whole
    files = ["README.md", "extractor.onnx", "intensities.onnx", "run_onnx.py", "settings.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["extractor"]["affect_names"][:3] == ["valence", "arousal", "neutral"]
    assert settings["extractor"]["image_size"] == SIDE
    clips = settings["intensities"]
    assert (clips["num_frames"], clips["sampling_fps"], clips["length_policy"]) == (4, 2.0, "thin")
    assert clips["label_names"][0] == "Adoration"
    assert clips["notes"] == [
        "learnt from a simulator, not from people's reports",
        "relative within the clip",
        "not calibrated: targets do not compare",
    ]
    assert settings["extractor"]["notes"][0].startswith("AU05, AU06")  # labels reached 1, 2 and 4
    for part in ("extractor", "intensities"):
        assert 0 <= settings[part]["largest_difference"] <= 1e-4


def test_the_readme_says_what_goes_in_and_out_and_what_must_stand_beside_it(whole):
    text = (whole[1] / "README.md").read_text()
    settings = json.loads((whole[1] / "settings.json").read_text())
    for note in settings["intensities"]["notes"]:
        assert note in text
    assert "`affect` (B, 4, 26)" in text
    assert "(N, 3, 32, 32)" in text
    assert f"{settings['extractor']['largest_difference']:.1e} (`extractor.onnx`)" in text
    assert "license: unknown" in text  # nobody knows what it was trained on
    assert not any(mark in text for mark in ("{{", "{%", "<!--", "None"))


def test_a_model_file_names_itself_and_nothing_of_this_machine(whole):
    _, folder = whole
    for name in ("extractor", "intensities"):
        model = onnx.load(folder / f"{name}.onnx")
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert facts["name"].endswith(name)
        assert facts["license"] == "unknown"
        assert facts["version"]
        assert {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input} == {
            "batch"
        }
        assert not [node for node in model.graph.node if node.metadata_props or node.doc_string]
        content = (folder / f"{name}.onnx").read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content  # as stack traces have it
    for path in folder.iterdir():
        content = path.read_bytes()
        for trace in (
            str(ROOT),
            str(folder.parent),
            str(Path(torch.__file__).parents[1]),
            str(Path.home()) + "/",
        ):
            assert trace.encode() not in content, (path.name, trace)


@pytest.mark.slow
def test_a_stage_1_checkpoint_gives_the_extractor_alone(tmp_path):
    model = MMAModel(MMAConfig(backbone_config=dict(BACKBONE), image_size=SIDE))
    folder = export_onnx(saved(model, tmp_path / "trained"), tmp_path / "onnx")
    assert not (folder / "intensities.onnx").exists()
    assert json.loads((folder / "settings.json").read_text())["intensities"] is None
    np.save(tmp_path / "crops.npy", images := crops(3))
    code, out, _ = run_alone(folder, tmp_path / "crops.npy")
    assert code == 0
    names, *rows = out.splitlines()
    assert names.startswith("valence,arousal,neutral")
    processor = MMAMRNNetVideoProcessor.from_pretrained(tmp_path / "trained")
    with torch.no_grad():
        wanted = model(processor.scale(images)).affect.numpy()
    np.testing.assert_allclose(
        [[float(value) for value in row.split(",")] for row in rows], wanted, atol=1e-5
    )


# Alone -------------------------------------------------------------------------------------------------------------

ALONE = """
import runpy, sys

allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "flatbuffers", "google", "packaging"}

class Refuse:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Refuse)
try:
    import torch
except ModuleNotFoundError:
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(folder, *words):
    """The folder's script where only numpy, onnxruntime and what that requires can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "run_onnx.py"), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_script_runs_with_numpy_and_onnxruntime_alone(whole, tmp_path):
    model, folder = whole
    np.save(tmp_path / "crops.npy", images := crops(6))  # two more than the model takes
    code, out, err = run_alone(folder, tmp_path / "crops.npy", "--frames", tmp_path / "frames.csv")
    assert code == 0, err
    processor = MMAMRNNetVideoProcessor.from_pretrained(folder.parent / "trained")
    with torch.no_grad():
        affect = model.mma(processor.scale(images)).affect
        values, frame_mask = processor.pad([affect])
        wanted = model(affect=values, frame_mask=frame_mask).intensities[0].tolist()
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [
        line[0] for line in lines
    ] == model.config.label_names  # not calibrated, hence not ranked
    np.testing.assert_allclose([float(line[1]) for line in lines], wanted, atol=0.0051)
    for note in (
        "6 frames thinned evenly to 4",
        "learnt from a simulator",
        "not calibrated",
        "prior only",
    ):
        assert note in err
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / "frames.csv", delimiter=",", skiprows=1), affect, atol=1e-5
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 48, 48, 3), np.uint8),
            r"crops must be (L, 32, 32, 3) uint8 RGB; got (2, 48, 48, 3) uint8",
        ),
        (np.zeros((2, 32, 32, 3), np.float32), "got (2, 32, 32, 3) float32"),
        (
            np.zeros((2, 5), np.float32),
            "frames must be (L, 26) float, see input_names; got (2, 5) float32",
        ),
        (np.full((2, 26), np.nan, np.float32), "no frame with a face"),
        (np.zeros((0, 32, 32, 3), np.uint8), "no frame with a face"),
    ],
)
def test_the_script_refuses_in_words_what_the_model_cannot_read(
    whole, tmp_path, capsys, monkeypatch, array, message
):
    np.save(tmp_path / "clip.npy", array)
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", str(tmp_path / "clip.npy")])
    assert script_of(whole[1]).main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_the_script_says_in_a_line_that_a_file_holds_no_array_or_no_model(
    whole, tmp_path, capsys, monkeypatch
):
    shutil.copytree(whole[1], tmp_path / "onnx")
    (tmp_path / "onnx" / "extractor.onnx").write_bytes(b"junk")
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "several.npz", crops=crops(2))
    np.save(tmp_path / "crops.npy", crops(2))
    for name, said in (
        ("empty.npy", "is empty"),
        ("several.npz", "holds several arrays"),
        ("crops.npy", "extractor.onnx: no model that can be opened"),
    ):
        monkeypatch.setattr(
            sys, "argv", ["run_onnx.py", str(tmp_path / name), "--model", str(tmp_path / "onnx")]
        )
        assert script_of(whole[1]).main() == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), said in err) == ("", 1, True)


def test_known_affect_goes_in_without_its_rows_of_no_face(whole, tmp_path, capsys, monkeypatch):
    model, folder = whole
    affect = torch.rand(3, 26)
    with_gap = np.insert(affect.numpy(), 1, np.nan, axis=0)
    np.save(tmp_path / "clip.npy", with_gap)
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", str(tmp_path / "clip.npy")])
    assert script_of(folder).main() == 0
    with torch.no_grad():
        wanted = model(affect=affect[None]).intensities[0].tolist()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    np.testing.assert_allclose([float(line[1]) for line in lines], wanted, atol=0.0051)


# Refusals, and the command line ------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "mine.txt").write_text("stays")
    with pytest.raises(
        CheckpointError, match="exists and is not an empty folder; nothing was written"
    ):
        export_onnx(tmp_path / "trained", tmp_path / "onnx")
    assert [path.name for path in tmp_path.rglob("*")] == ["onnx", "mine.txt"]


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx_export, "find_spec", lambda name: None if name == "onnxscript" else object()
    )
    with pytest.raises(
        ValueError, match=r"pip install 'mma-mrnnet\[onnx\]' \(onnxscript missing\)"
    ):
        export_onnx(tmp_path / "trained", tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_a_processor_of_another_size_is_refused(tmp_path):
    feature_model(tmp_path / "trained")
    MMAMRNNetVideoProcessor(num_frames=9).save_pretrained(tmp_path / "trained")
    with pytest.raises(CheckpointError, match="pads to 9 frames, the model reads 4"):
        export_onnx(tmp_path / "trained", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_command_writes_the_folder_the_same_to_the_byte_each_time(
    exported, tmp_path, capsys, settings_kept
):
    _, folder = exported(temporal_pooling="padded")
    (tmp_path / "onnx").mkdir()  # an empty one may be there
    words = ["export", str(folder / "trained"), str(tmp_path / "onnx"), "--format", "onnx"]
    assert main(words) == 0
    assert "4 files" in capsys.readouterr().out
    for path in (folder / "onnx").iterdir():
        assert path.read_bytes() == (tmp_path / "onnx" / path.name).read_bytes(), path.name
    assert main(words) == 1
