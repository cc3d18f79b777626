"""ONNX files: the same numbers as PyTorch's, beside a checkpoint or in a folder of their own; refusals."""

import json
import pickle
import shutil
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
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.hub.facts import CheckpointError
from mma_mrnnet.hub.onnx import export_onnx
from mma_mrnnet.prediction.checkpoint import MirroredEngine, open_engine, open_stage_2

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


def engines(trained, onnx_folder):
    return open_engine(trained, engine="torch"), open_engine(onnx_folder, engine="onnx")


def padded_clips(facts, lengths):
    """Random affect in [0, 1] of clips of these lengths, and the mask; NaN in the padding."""
    affect = np.random.rand(len(lengths), facts.num_frames, facts.input_size).astype(np.float32)
    frame_mask = np.arange(facts.num_frames) < np.array(lengths)[:, None]
    return np.where(frame_mask[..., None], affect, np.float32(np.nan)), frame_mask


def test_both_engines_give_the_same_affect_intensities_and_contributions(whole):
    model, folder = whole
    by_torch, by_onnx = engines(folder.parent / "trained", folder)
    assert (by_torch.name, by_onnx.name) == ("torch", "onnx")
    assert by_torch.facts == by_onnx.facts
    assert by_onnx.facts.label_names == model.config.label_names
    for count in (0, 1, 3):
        images = list(crops(count))
        wanted = by_torch.extract_affect(images)
        assert wanted.shape == (count, 26)
        np.testing.assert_allclose(by_onnx.extract_affect(images), wanted, atol=1e-5)
    values = padded_clips(by_onnx.facts, [4, 1, 0, 2, 3])
    np.testing.assert_allclose(
        by_onnx.predict_intensities(*values), by_torch.predict_intensities(*values), atol=1e-5
    )
    for ours, theirs in zip(
        by_onnx.split_by_frame(*values), by_torch.split_by_frame(*values), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_crops_of_another_size_are_resized_as_the_processor_does_up_to_rounding(whole):
    _, folder = whole
    by_torch, by_onnx = engines(folder.parent / "trained", folder)
    smooth = np.tile(np.linspace(0, 255, 48).astype(np.uint8)[:, None, None], (1, 48, 3))
    images = [smooth, crops(1)[0], smooth.transpose(1, 0, 2)]
    np.testing.assert_allclose(
        by_onnx.extract_affect(images), by_torch.extract_affect(images), atol=0.02
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


def test_the_folder_holds_both_models_and_their_facts(whole):
    _, folder = whole
    files = ["README.md", "extractor.onnx", "intensities.onnx", "settings.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["affect_names"][:3] == ["valence", "arousal", "neutral"]
    assert settings["image_size"] == SIDE
    assert [settings[name] for name in ("num_frames", "sampling_fps", "length_policy")] == [
        4,
        2.0,
        "thin",
    ]
    assert settings["label_names"][0] == "Adoration"
    assert settings["notes"] == [
        "learnt from a simulator, not from people's reports",
        "relative within the clip",
        "not calibrated: targets do not compare",
    ]
    assert settings["affect_notes"][0].startswith("AU05, AU06")  # labels reached 1, 2 and 4
    differences = settings["largest_difference"]
    assert sorted(differences) == ["extractor.onnx", "intensities.onnx"]
    assert all(0 <= value <= 1e-4 for value in differences.values())


def test_the_readme_says_what_goes_in_and_out_and_what_must_stand_beside_it(whole):
    text = (whole[1] / "README.md").read_text()
    settings = json.loads((whole[1] / "settings.json").read_text())
    for note in settings["notes"]:
        assert note in text
    assert "`affect` (B, 4, 26)" in text
    assert "(N, 32, 32, 3) uint8" in text
    assert f"{settings['largest_difference']['extractor.onnx']:.1e} (`extractor.onnx`)" in text
    assert "license: unknown" in text  # nobody knows what it was trained on
    assert not any(mark in text for mark in ("{{", "{%", "<!--", "None"))


@pytest.mark.parametrize("which", ["whole", "features"])
def test_the_code_of_the_readme_runs(whole, exported, monkeypatch, capsys, which):
    folder = whole[1] if which == "whole" else exported(temporal_pooling="padded")[1] / "onnx"
    code = (folder / "README.md").read_text().split("```python")[1].split("```")[0]
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + (which == "whole")
    assert "'Adoration'" in printed[-1]


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
    assert json.loads((folder / "settings.json").read_text())["label_names"] == []
    by_torch, by_onnx = engines(tmp_path / "trained", folder)
    assert by_torch.facts == by_onnx.facts
    images = list(crops(3))
    wanted = by_torch.extract_affect(images)
    np.testing.assert_allclose(by_onnx.extract_affect(images), wanted, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"a stage-1 model \(mma\) estimates affect, not intensities"
    ):
        open_stage_2(folder)


# Beside a checkpoint -----------------------------------------------------------------------------------------------


@pytest.fixture
def carrying(whole, tmp_path):
    """A checkpoint to which ONNX files were added."""
    folder = tmp_path / "carrying"
    shutil.copytree(whole[1].parent / "trained", folder)
    assert export_onnx(folder, folder) == folder
    return folder


def test_files_added_to_a_checkpoint_read_its_weights_and_give_the_same_numbers(whole, carrying):
    files = ["extractor.onnx", "intensities.onnx", "settings.json"]
    trained = {path.name for path in (whole[1].parent / "trained").iterdir()}
    assert {path.name for path in carrying.iterdir()} - trained == set(files)
    alone = (whole[1] / "extractor.onnx").stat().st_size
    assert (carrying / "extractor.onnx").stat().st_size < alone
    tensors = onnx.load(carrying / "extractor.onnx", load_external_data=False).graph.initializer
    places = [entry.value for tensor in tensors for entry in tensor.external_data[:1]]
    assert places
    assert set(places) == {"model.safetensors"}
    by_torch, by_onnx = engines(carrying, carrying)
    images = list(crops(3))
    np.testing.assert_allclose(
        by_onnx.extract_affect(images), by_torch.extract_affect(images), atol=1e-5
    )
    values = padded_clips(by_onnx.facts, [4, 2])
    np.testing.assert_allclose(
        by_onnx.predict_intensities(*values), by_torch.predict_intensities(*values), atol=1e-5
    )


def test_the_default_engine_is_onnx_where_the_files_are_and_torch_elsewhere(whole, carrying):
    trained = whole[1].parent / "trained"
    assert open_engine(carrying).name == "onnx"
    assert open_engine(carrying, device="cpu").name == "onnx"
    assert open_engine(carrying, engine="torch").name == "torch"
    assert open_engine(trained).name == "torch"
    assert open_engine(whole[0], MMAMRNNetVideoProcessor.from_pretrained(trained)).name == "torch"
    assert open_engine().name == "onnx"  # the bundled one
    engine = open_engine(carrying)
    assert open_engine(engine) is engine
    with pytest.raises(CheckpointError, match=r"engine='onnx' cannot run it: has no ONNX files"):
        open_engine(trained, engine="onnx")
    with pytest.raises(ValueError, match="engine='onnx' takes a checkpoint by name"):
        open_engine(carrying, engine="onnx", device="cuda")
    with pytest.raises(ValueError, match="engine must be one of onnx, torch; got 'fast'"):
        open_engine(engine="fast")
    with pytest.raises(ValueError, match="the engine that was given is onnx"):
        open_engine(engine, engine="torch")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_files_of_other_weights_or_settings_are_not_run(carrying, name, caplog):
    content = bytearray((carrying / name).read_bytes())
    if name == "config.json":
        content += b"\n"
    else:
        content[-2] ^= 1
    (carrying / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="made from other weights or settings"):
        open_engine(carrying, engine="onnx")
    assert open_engine(carrying).name == "torch"
    assert "PyTorch runs it" in caplog.text


def test_a_damaged_file_is_named_in_a_line(carrying):
    (carrying / "extractor.onnx").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"extractor\.onnx: no model that can be opened"):
        open_engine(carrying)
    (carrying / "settings.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"settings\.json: no settings of ONNX files"):
        open_engine(carrying, engine="onnx")


def test_an_engine_is_pickled_by_its_folder(carrying):
    engine = open_engine(carrying)
    content = pickle.dumps(engine)
    assert len(content) < 1000
    images = list(crops(2))
    assert (
        pickle.loads(content).extract_affect(images).tolist()  # noqa: S301 - made here
        == engine.extract_affect(images).tolist()
    )


def test_an_export_for_the_hub_takes_the_files_along(carrying, tmp_path):
    folder = export_checkpoint(carrying, tmp_path / "hub")
    assert open_engine(folder, engine="onnx").facts == open_engine(carrying).facts
    images = list(crops(2))
    np.testing.assert_allclose(
        open_engine(folder).extract_affect(images),
        open_engine(carrying).extract_affect(images),
        atol=1e-6,
    )


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
    assert "3 files" in capsys.readouterr().out
    for path in (folder / "onnx").iterdir():
        assert path.read_bytes() == (tmp_path / "onnx" / path.name).read_bytes(), path.name
    assert main(words) == 1


def test_a_mirrored_engine_averages_each_crop_with_its_mirror_image(tmp_path):
    engine = open_engine()
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (112, 112, 3), np.uint8) for _ in range(2)]
    mirrored = MirroredEngine(engine)
    expected = [
        engine.extract_affect([crop, np.ascontiguousarray(crop[:, ::-1])]).mean(0) for crop in crops
    ]
    assert mirrored.extract_affect(crops) == pytest.approx(np.stack(expected), abs=1e-5)
    assert mirrored.facts == engine.facts
    again = pickle.loads(pickle.dumps(mirrored))  # noqa: S301 - our own
    assert again.extract_affect(crops) == pytest.approx(np.stack(expected), abs=1e-5)
