"""Checkpoints as folders: exported, loaded with and without the package, refused where damaged."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoProcessor,
    AutoVideoProcessor,
    BertConfig,
    pipeline,
)

from mma_mrnnet import (
    MMAConfig,
    MMAForImageClassification,
    MMAModel,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetForVideoClassification,
    MMAMRNNetVideoProcessor,
)
from mma_mrnnet.cli import main
from mma_mrnnet.hub import export as hub
from mma_mrnnet.hub.checkpoints import (
    CheckpointError,
    load_checkpoint,
    load_pretrained,
    pretrained_folder,
)
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.model.labels import EXPRESSIONS


@pytest.fixture
def stage1(tiny_mma, tiny_processor, tmp_path):
    folder = tmp_path / "trained-1"
    tiny_mma.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def stage2(stage1, tmp_path):
    """As training leaves it: built around a stage-1 folder, and calibrated."""
    model = MMAMRNNetForIntensity.from_mma_pretrained(
        stage1, num_frames=4, hidden_size=8, dense_size=6
    )
    model.set_calibration(torch.rand(7) + 0.5, torch.rand(7) * 0.1)
    folder = tmp_path / "trained-2"
    model.save_pretrained(folder)
    MMAMRNNetVideoProcessor.from_pretrained(stage1).save_pretrained(folder)
    return folder


@pytest.fixture(params=["stage1", "stage2"])
def trained(request):
    return request.getfixturevalue(request.param)


def crops(count=3, side=32):
    return np.random.randint(0, 256, (count, side, side, 3), dtype=np.uint8)


def content(folder):
    return sorted(path.name for path in folder.iterdir())


# What transformers uploads -----------------------------------------------------------------------------------------


def uploaded(monkeypatch, push, existing=None):
    """{name: text or bytes} of what a push would commit to a repository with this card."""
    found = {}

    class Hub:
        def create_repo(self, repo_id, **_):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, operations, **_):
            for each in operations:
                found[each.path_in_repo] = Path(each.path_or_fileobj).read_bytes()

    def load(*_, **__):
        if existing is None:
            raise EntryNotFoundError("no card")
        return ModelCard(existing)

    monkeypatch.setattr("transformers.utils.hub.hf_api", Hub)
    monkeypatch.setattr("transformers.utils.hub.ModelCard.load", load)
    push()
    assert b"Model Card for Model ID" not in found.get("README.md", b"")
    return found


@pytest.fixture
def recorded(stage2):
    """A checkpoint with results: its stage 1 from a CC BY corpus."""
    shipped = pretrained_folder()
    for name in ("results_mma.json", "results_mrnn.json"):
        shutil.copy(shipped / name, stage2)
    return stage2


def test_a_push_of_a_loaded_model_carries_its_results_and_the_card_of_an_export(
    recorded, tmp_path, monkeypatch
):
    exported = export_checkpoint(recorded, tmp_path / "export")
    model = AutoModel.from_pretrained(recorded)
    files = uploaded(monkeypatch, lambda: model.push_to_hub("me/model"))
    assert {"results_mma.json", "results_mrnn.json", "config.json", "labels.py"} < set(files)
    assert files["README.md"] == (exported / "README.md").read_bytes()
    data = ModelCard(files["README.md"].decode()).data
    assert (data.license, data.base_model) == ("cc-by-4.0", None)
    assert data.metrics == ["f1", "pearsonr"]


def test_a_push_replaces_what_a_card_said_of_earlier_weights(recorded, monkeypatch):
    model = AutoModel.from_pretrained(recorded)
    old = "---\nlicense: mit\n---\n# mine\n"
    card = uploaded(monkeypatch, lambda: model.push_to_hub("me/model"), old)["README.md"].decode()
    assert (ModelCard(card).data.license, "# mine" in card) == ("cc-by-4.0", False)


def test_weights_that_learnt_on_have_an_unknown_licence_and_keep_the_credits(recorded, monkeypatch):
    model = AutoModel.from_pretrained(recorded)
    with torch.no_grad():
        model.output.bias += 0.1
    files = uploaded(monkeypatch, lambda: model.push_to_hub("me/model"))
    assert "results_mma.json" in files  # the extractor is the same
    assert "results_mrnn.json" not in files
    with torch.no_grad():
        model.mma.expression_head.bias += 0.1
    files = uploaded(monkeypatch, lambda: model.push_to_hub("me/model"))
    card = files["README.md"].decode()
    assert not {"results_mma.json", "results_mrnn.json"} & set(files)
    assert ModelCard(card).data.license == "unknown"
    assert "**Trained further.** These weights are not those of `trained-2`" in card
    assert "| warp | cc-by-4.0 |" in card
    assert "must not be used for" in card


def test_what_learnt_on_from_the_hub_names_its_base(recorded, monkeypatch):
    model = AutoModel.from_pretrained(recorded)
    model.config._name_or_path, model.config._commit_hash = "me/base", "0" * 40
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(recorded))
    same = uploaded(monkeypatch, lambda: model.push_to_hub("me/model"))["README.md"].decode()
    assert ModelCard(same).data.base_model is None
    with torch.no_grad():
        model.output.bias += 0.1
    card = uploaded(monkeypatch, lambda: model.push_to_hub("me/model"))["README.md"].decode()
    assert ModelCard(card).data.base_model == "me/base"
    assert "[me/base](https://huggingface.co/me/base)" in card


def test_a_new_model_is_pushed_with_a_card_that_knows_no_licence(tiny_model, monkeypatch):
    files = uploaded(monkeypatch, lambda: tiny_model.push_to_hub("me/model"))
    data = ModelCard(files["README.md"].decode()).data
    assert (data.license, data.library_name) == ("unknown", "mma_mrnnet")


def test_settings_are_pushed_with_a_card_of_their_own_and_leave_a_models_alone(
    tiny_model, tiny_processor, monkeypatch
):
    for part, name in ((tiny_processor, "processor"), (tiny_model.config, "model")):
        files = uploaded(monkeypatch, lambda part=part: part.push_to_hub("me/model"))
        card = files["README.md"].decode()
        assert ModelCard(card).data.license == "apache-2.0"
        assert f"only the settings of a {name}" in card
        own = "---\nlicense: mit\n---\n# mine\n"
        kept = uploaded(monkeypatch, lambda part=part: part.push_to_hub("me/model"), own)
        assert "# mine" in kept["README.md"].decode()


def test_a_pipeline_is_pushed_with_the_models_card(recorded, monkeypatch):
    pipe = pipeline("facial-expression-intensity", model=str(recorded))
    files = uploaded(monkeypatch, lambda: pipe.push_to_hub("me/model"))
    assert ModelCard(files["README.md"].decode()).data.license == "cc-by-4.0"
    assert {"pipeline_mma_mrnnet.py", "results_mrnn.json", "video_preprocessor_config.json"} < set(
        files
    )


def test_without_the_package_a_push_is_refused_in_words(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "mma_mrnnet.hub.export", None)
    with pytest.raises(ValueError, match="only the package mma-mrnnet writes the card of a push"):
        uploaded(monkeypatch, lambda: tiny_model.push_to_hub("me/model"))


# What an export holds ----------------------------------------------------------------------------------------------


def test_an_export_holds_weights_config_processors_code_and_card(stage1, stage2, tmp_path):
    code = [
        "clip_length.py",
        "configuration_mma_mrnnet.py",
        "labels.py",
        "losses.py",
        "modeling_mma.py",
        "priors.py",
    ]
    code += ["video_processing_mma_mrnnet.py"]
    files = ["README.md", "config.json", "model.safetensors", "video_preprocessor_config.json"]
    assert content(export_checkpoint(stage1, tmp_path / "one")) == sorted(
        [*code, *files, "preprocessor_config.json"]
    )
    assert content(export_checkpoint(stage2, tmp_path / "two")) == sorted(
        [
            *code,
            *files,
            "frame_by_frame.py",
            "masked_rnn.py",
            "modeling_mma_mrnnet.py",
            "pipeline_mma_mrnnet.py",
        ]
    )


def test_an_export_samples_videos_of_crops_at_the_models_rate_and_a_model_of_tables_brings_no_pipeline(
    stage2, tiny_processor, tmp_path
):
    config = json.loads((stage2 / "config.json").read_text())
    (stage2 / "config.json").write_text(json.dumps({**config, "sampling_fps": 5.0}))
    assert load_checkpoint(export_checkpoint(stage2, tmp_path / "hub"))[1].fps == 5.0
    model = MMAMRNNetForIntensity(
        MMAMRNNetConfig(feature_names=["smile"], num_frames=4, hidden_size=8, dense_size=6)
    )
    model.save_pretrained(tmp_path / "tables")
    tiny_processor.save_pretrained(tmp_path / "tables")
    folder = export_checkpoint(tmp_path / "tables", tmp_path / "tables-hub")
    assert "pipeline_mma_mrnnet.py" not in content(folder)
    assert "custom_pipelines" not in (folder / "config.json").read_text()


def test_other_files_beside_the_model_stay_behind(stage2, tmp_path):
    (stage2 / "notes.txt").write_text("stays")
    assert "notes.txt" not in content(export_checkpoint(stage2, tmp_path / "hub"))


def test_the_card_of_an_unmeasured_model_is_whole(trained, tmp_path):
    card = ModelCard.load(export_checkpoint(trained, tmp_path / "hub") / "README.md")
    assert (card.data.license, card.data.license_name) == (
        "unknown",
        None,
    )  # nobody recorded it
    # For stage 2 under `transformers` the Hub would show a pipeline that finds no faces.
    stage = AutoConfig.from_pretrained(trained).model_type
    assert (card.data.library_name, card.data.pipeline_tag) == {
        "mma": ("transformers", "image-classification"),
        "mma_mrnnet": ("mma_mrnnet", "video-classification"),
    }[stage]
    assert len(card.text) > 500
    assert not re.search(r"\bNone\b|\{\{|\{%|\}\}|\bnan\b|<!--", card.text)


def test_no_exported_file_names_a_place_on_this_machine(stage2, tmp_path):
    config = json.loads((stage2 / "config.json").read_text())
    config["mma_config"]["_name_or_path"] = (
        "/somewhere/private"  # as an older training run wrote it
    )
    (stage2 / "config.json").write_text(json.dumps(config))
    folder = export_checkpoint(stage2, tmp_path / "hub")
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text("utf-8")
            assert "/somewhere/private" not in text
            assert str(tmp_path) not in text


def test_an_export_names_folders_but_not_where_they_are(shipped_copy, tmp_path):
    source = shipped_copy
    for name in ("results_mma.json", "results_mrnn.json"):
        results = json.loads((source / name).read_text())
        results["command"] = (
            "accelerate launch /home/alice/code/train.py --data "
            "'face_parquet:/home/alice/my faces,affectnet:C:\\Users\\alice\\AffectNet' "
            "--output ../alice/runs/mma --mma runs/alice/model --epochs 3"
        )
        results["arguments"] |= {
            "data": "clips:/home/alice/clips/",
            "output": "/mnt/alice b/runs/new",
        }
        results["data"]["data"] += " in /home/alice/clips, read and/or checked"
        (source / name).write_text(json.dumps(results))
    evaluation = json.loads((source / "results_evaluation.json").read_text())
    evaluation["model"]["name"] = evaluation["data"]["data"] = "/home/alice c/faces"
    (source / "results_evaluation.json").write_text(json.dumps(evaluation))
    folder = export_checkpoint(source, tmp_path / "hub")
    for path in folder.iterdir():
        if path.suffix in (".json", ".md"):
            assert "alice" not in path.read_text("utf-8"), path.name
    results = json.loads((folder / "results_mma.json").read_text())
    assert results["command"] == (
        "accelerate launch train.py --data 'face_parquet:my faces,affectnet:AffectNet' "
        "--output mma --mma model --epochs 3"
    )
    assert results["arguments"]["data"] == "clips:clips"
    assert results["data"]["data"].endswith(" in clips, read and/or checked")
    assert (
        results["provenance"] == json.loads((source / "results_mma.json").read_text())["provenance"]
    )
    assert "https://doi.org/10.6084/m9.figshare.5047666.v5" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["results_mrnn.json", "results_evaluation.json"])
@pytest.mark.parametrize("content", ["{", '{"stage": 3}', "[" * 100_000, "[" * 900 + "]" * 900])
def test_a_damaged_result_file_is_named_before_anything_is_written(
    shipped_copy, tmp_path, name, content, capsys
):
    (shipped_copy / name).write_text(content)
    assert main(["export", str(shipped_copy), str(tmp_path / "hub")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mma-mrnnet: {shipped_copy / name}")
    assert not (tmp_path / "hub").exists()


@pytest.fixture
def shipped_copy(tmp_path):
    """The bundled checkpoint in a folder of its own."""
    return shutil.copytree(pretrained_folder(), tmp_path / "shipped")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_are_readable_by_whom_the_umask_lets(trained, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        folder = export_checkpoint(trained, tmp_path / "hub")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {mode}


@pytest.mark.parametrize(
    ("pooling", "policy", "said"),
    [
        (
            "padded",
            "thin",
            ("no mask, padding counts as frames; dense 6", "longer clips are thinned evenly"),
        ),
        (
            "last",
            "truncate",
            ("output of the last real frame; dense 6", "of longer clips the first T"),
        ),
        ("mean", "resample", ("mean over the real frames; dense 6", "every clip is brought to T")),
        ("attention", "thin", ("attention over the real frames; dense 6",)),
    ],
)
def test_a_card_says_what_the_network_reads_and_how(stage1, tmp_path, pooling, policy, said):
    settings = {
        "channels": ["expressions", "action_units"],
        "temporal_pooling": pooling,
        "num_frames": 4,
    }
    model = MMAMRNNetForIntensity.from_mma_pretrained(
        stage1, hidden_size=8, dense_size=6, **settings
    )
    model.config.mma_config.untrained_outputs = ["valence", "arousal", "AU11"]
    model.save_pretrained(tmp_path / "trained")
    MMAMRNNetVideoProcessor.from_pretrained(stage1, length_policy=policy).save_pretrained(
        tmp_path / "trained"
    )
    folder = export_checkpoint(tmp_path / "trained", tmp_path / "hub")
    card = (folder / "README.md").read_text("utf-8")
    for words in (
        *said,
        "; the GRU reads of them: expressions, action units |",
        "though the recurrent part reads AU11.",
    ):
        assert words in card
    loaded, processor = load_checkpoint(folder)
    assert processor.length_policy == policy
    clips = [crops(2), crops(6)]
    seen = [each(**processor(clips, return_tensors="pt")).intensities for each in (model, loaded)]
    assert torch.equal(*seen)


def test_the_command_line_exports_too(stage2, tmp_path, capsys):
    assert main(["export", str(stage2), str(tmp_path / "hub")]) == 0
    assert "wrote" in capsys.readouterr().out
    assert content(tmp_path / "hub") == content(export_checkpoint(stage2, tmp_path / "other"))
    assert main(["export", str(stage2), str(tmp_path / "hub")]) == 1
    assert "not an empty folder; nothing was written" in capsys.readouterr().err


# Where it may be written -------------------------------------------------------------------------------------------


def test_an_empty_folder_may_be_the_target(trained, tmp_path):
    (tmp_path / "hub").mkdir()
    assert "README.md" in content(export_checkpoint(trained, tmp_path / "hub"))


def test_a_target_that_holds_something_is_refused_and_left_alone(trained, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target in ("hub", "file"):
        with pytest.raises(CheckpointError, match="not an empty folder"):
            export_checkpoint(trained, tmp_path / target)
    assert content(tmp_path / "hub") == ["mine.txt"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_to_an_empty_folder_stays_a_link(trained, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    before = content(tmp_path)
    assert "README.md" in content(export_checkpoint(trained, tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path) == before


def test_the_current_folder_is_refused_in_words(trained, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CheckpointError, match="is the current folder"):
        export_checkpoint(trained, ".")
    assert content(tmp_path / "here") == []


def test_an_export_that_fails_leaves_nothing(trained, tmp_path, monkeypatch):
    def fail(model, folder):
        raise OSError("the disk is full")

    monkeypatch.setattr(hub, "model_card", fail)
    before = content(tmp_path)
    with pytest.raises(OSError, match="the disk is full"):
        export_checkpoint(trained, tmp_path / "hub")
    assert content(tmp_path) == before


# With the package --------------------------------------------------------------------------------------------------


def test_with_the_package_the_auto_classes_need_no_trust(stage1, stage2, tmp_path):
    one, two = (
        export_checkpoint(stage1, tmp_path / "one"),
        export_checkpoint(stage2, tmp_path / "two"),
    )
    assert type(AutoConfig.from_pretrained(one)) is MMAConfig
    assert type(AutoConfig.from_pretrained(two)) is MMAMRNNetConfig
    assert type(AutoModel.from_pretrained(one)) is MMAModel
    assert type(AutoModel.from_pretrained(two)) is MMAMRNNetForIntensity
    assert (
        type(AutoModelForVideoClassification.from_pretrained(two))
        is MMAMRNNetForVideoClassification
    )
    for auto in (AutoVideoProcessor, AutoProcessor):
        assert type(auto.from_pretrained(two)) is MMAMRNNetVideoProcessor
    assert type(AutoVideoProcessor.from_pretrained(one)) is MMAMRNNetVideoProcessor


def test_an_export_gives_what_its_source_gives(stage2, tmp_path):
    export_checkpoint(stage2, tmp_path / "hub")
    batches = []
    for folder in (stage2, tmp_path / "hub"):
        model, processor = load_checkpoint(folder)
        assert not model.training
        assert model.config.calibrated
        np.random.seed(3)
        batches.append(model(**processor([crops(3), crops(2)], return_tensors="pt")).intensities)
    assert torch.equal(*batches)


def test_the_extractor_comes_out_of_a_stage_2_export(stage1, stage2, tmp_path):
    export_checkpoint(stage2, tmp_path / "hub")
    inside, alone = (
        MMAModel.from_pretrained(tmp_path / "hub").eval(),
        MMAModel.from_pretrained(stage1).eval(),
    )
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(inside(pixels).affect, alone(pixels).affect)


@pytest.mark.parametrize("side", [32, 20, 45])
def test_the_image_processor_of_a_stage_1_export_gives_our_pixel_values(
    stage1, tiny_processor, tmp_path, side
):
    processor = AutoImageProcessor.from_pretrained(export_checkpoint(stage1, tmp_path / "hub"))
    images = crops(4, side)
    pixel_values = processor(list(images), return_tensors="pt")["pixel_values"]
    assert (pixel_values - tiny_processor.scale(images)).abs().max() <= 1e-6


@pytest.mark.parametrize("kind", ["export", "package"])
def test_pipelines_of_images_show_the_expressions_of_a_crop(stage1, tiny_processor, tmp_path, kind):
    folder = export_checkpoint(stage1, tmp_path / "hub")
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "image-classification"
    image = crops(1)[0]
    trust = {"trust_remote_code": True} if kind == "export" else {}
    found = pipeline("image-classification", model=str(folder), top_k=7, **trust)(
        Image.fromarray(image)
    )
    model = MMAModel.from_pretrained(stage1).eval()
    wanted = model(tiny_processor.scale(image[None])).expression_logits.softmax(-1)[0]
    assert {row["label"]: row["score"] for row in found} == pytest.approx(
        dict(zip(EXPRESSIONS, wanted.tolist(), strict=True)), abs=1e-5
    )


def test_labels_of_an_image_classifier_are_the_expressions_labels(tiny_mma):
    model = MMAForImageClassification(tiny_mma.config).eval()
    model.load_state_dict(tiny_mma.state_dict())
    pixels, labels = torch.rand(3, 3, 32, 32), torch.tensor([4, -100, 0])
    loss = model(pixels, labels=labels).loss
    assert torch.equal(loss, tiny_mma(pixels, expression_labels=labels).loss)
    assert torch.equal(model(pixels, labels=labels, return_dict=False)[0], loss)


# Without the package -----------------------------------------------------------------------------------------------

ONLY_REQUIRED = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

required, waiting = set(), {"torch", "torchvision", "transformers", "safetensors"}
while waiting:
    name = waiting.pop()
    try:
        wanted = map(Requirement, distribution(name).requires or ())
    except PackageNotFoundError:
        continue
    required.add(name)
    named = {canonicalize_name(one.name) for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})}
    waiting |= named - required
owners = packages_distributions().items()
modules = {module for module, those in owners if required & {canonicalize_name(one) for one in those}}
modules |= {"transformers_modules"} | sys.stdlib_module_names


class OnlyRequired(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = name.split(".")[0] in modules or name.startswith("_sysconfigdata")  # of the standard library too
        return super().find_spec(name, path, target) if found else None


sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyRequired]
"""
"""No package but these four and what they require can be found: neither ours nor accelerate, pandas or OpenCV."""

STRANGER = """
import torch
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForVideoClassification,
    AutoProcessor, AutoVideoProcessor
)

torch.set_num_threads(1)
one, two, inputs, outputs, again = sys.argv[1:]
given = torch.load(inputs)
trust = {"trust_remote_code": True}
seen = {"names": []}
model = AutoModel.from_pretrained(one, **trust).eval()
image_processor = AutoImageProcessor.from_pretrained(one)
pixels = image_processor(list(given["crops"]), return_tensors="pt")
seen["affect"] = model(**pixels).affect
expressions = AutoModelForImageClassification.from_pretrained(one, **trust).eval()(**pixels).logits
assert torch.equal(expressions, model(**pixels).expression_logits)
for auto in (AutoModel, AutoModelForVideoClassification):
    for processing in (AutoVideoProcessor, AutoProcessor):
        model = auto.from_pretrained(two, **trust).eval()
        processor = processing.from_pretrained(two, **trust)
        batch = processor([given["crops"].numpy(), given["crops"][:2].numpy()], return_tensors="pt")
        output = model(**batch)
        name = f"{auto.__name__} {processing.__name__}"
        seen["names"].append(name)
        seen[name] = {"intensities": output.intensities, "affect": output.affect, **batch}
        model.save_pretrained(f"{again}/{auto.__name__}")
        processor.save_pretrained(f"{again}/{auto.__name__}")
seen["labels"] = model.config.id2label
for saved in (AutoModel, AutoModelForVideoClassification):
    for auto in (AutoModel, AutoModelForVideoClassification):
        model = auto.from_pretrained(f"{again}/{saved.__name__}", **trust).eval()
        assert torch.equal(model(**batch).intensities, output.intensities)
    AutoVideoProcessor.from_pretrained(f"{again}/{saved.__name__}", **trust)
AutoModel.from_pretrained(one, **trust).save_pretrained(f"{again}/stage1")
again = AutoModel.from_pretrained(f"{again}/stage1", **trust).eval()
assert torch.equal(again(**image_processor(list(given["crops"]), return_tensors="pt")).affect, seen["affect"])
strange = {"mma_mrnnet", "accelerate", "pandas", "av", "cv2", "datasets", "evaluate", "gradio"} & set(sys.modules)
assert not strange, strange
torch.save(seen, outputs)
"""


def run_without_the_package(script, folder, *words):
    cache = {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ONLY_REQUIRED + script, *map(str, words)],
        env={**os.environ, **cache, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_machine_without_the_package_gets_the_same_bits(stage1, stage2, tmp_path):
    one, two = (
        export_checkpoint(stage1, tmp_path / "one"),
        export_checkpoint(stage2, tmp_path / "two"),
    )
    given = torch.from_numpy(crops(3))
    torch.save({"crops": given}, tmp_path / "inputs.pt")
    run_without_the_package(
        STRANGER, tmp_path, one, two, tmp_path / "inputs.pt", tmp_path / "seen.pt", tmp_path / "a"
    )

    names = {"frame_by_frame.py", "masked_rnn.py", "modeling_mma_mrnnet.py", *content(one)} - {
        "README.md",
        "preprocessor_config.json",
    }
    for saved in (
        "AutoModel",
        "AutoModelForVideoClassification",
    ):  # saved a second time, by the stranger
        assert set(content(tmp_path / "a" / saved)) == names
        config = json.loads((tmp_path / "a" / saved / "config.json").read_text())
        assert config["auto_map"] == json.loads((two / "config.json").read_text())["auto_map"]
    seen = torch.load(tmp_path / "seen.pt")
    model, processor = load_checkpoint(stage2)
    with torch.no_grad():
        extractor, pixels = MMAModel.from_pretrained(stage1).eval(), processor.scale(given)
        batch = processor([given, given[:2]], return_tensors="pt")
        wanted = {**model(**batch), **batch}
    assert torch.allclose(seen["affect"], extractor(pixels).affect, atol=1e-6)
    assert len(seen["names"]) == 4
    for name in seen["names"]:
        for key, value in seen[name].items():
            assert torch.equal(value, wanted[key]), (name, key)
    assert seen["labels"] == model.config.id2label


TABLE_STRANGER = """
import torch
from transformers import AutoModel, AutoVideoProcessor

torch.set_num_threads(1)
place, inputs, outputs = sys.argv[1:]
model = AutoModel.from_pretrained(place, trust_remote_code=True).eval()
processor = AutoVideoProcessor.from_pretrained(place, trust_remote_code=True)
affect, frame_mask = processor.pad(torch.load(inputs))
torch.save(model(affect=affect, frame_mask=frame_mask).intensities, outputs)
"""


@pytest.mark.slow
def test_a_model_that_reads_features_does_the_same_without_the_package(tiny_processor, tmp_path):
    config = MMAMRNNetConfig(
        feature_names=["smile", "brow"], num_frames=4, hidden_size=8, dense_size=6
    )
    model = MMAMRNNetForIntensity(config).eval()
    model.set_feature_scaling(torch.tensor([2.0, 600.0]), torch.tensor([0.5, 30.0]))
    model.save_pretrained(tmp_path / "trained")
    tiny_processor.save_pretrained(tmp_path / "trained")
    clips = [torch.rand(3, 2) * 600, torch.rand(1, 2)]
    torch.save(clips, tmp_path / "inputs.pt")
    place = export_checkpoint(tmp_path / "trained", tmp_path / "hub")
    run_without_the_package(
        TABLE_STRANGER, tmp_path, place, tmp_path / "inputs.pt", tmp_path / "seen.pt"
    )
    affect, frame_mask = tiny_processor.pad(clips)
    assert torch.equal(
        torch.load(tmp_path / "seen.pt"), model(affect=affect, frame_mask=frame_mask).intensities
    )


# Checkpoints that cannot be loaded ---------------------------------------------------------------------------------


def replaced(name, old, new):
    def damage(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return damage


def cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def emptied(folder):
    for path in folder.iterdir():
        path.unlink()


def another_model(folder):
    emptied(folder)
    BertConfig().save_pretrained(folder)


DAMAGES = {
    "missing": shutil.rmtree,
    "empty": emptied,
    "another model type": another_model,
    "broken config": replaced("config.json", "{", ""),
    "config out of range": replaced("config.json", '"num_frames": 4', '"num_frames": 0'),
    "config of another size": replaced("config.json", '"dense_size": 6', '"dense_size": 9'),
    "unknown type with code": replaced("config.json", '"mma_mrnnet"', '"somebody_elses"'),
    "truncated weights": cut_weights,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no processor": lambda folder: (folder / "video_preprocessor_config.json").unlink(),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_checkpoint_is_named_in_one_line_and_not_exported(case, stage2, tmp_path):
    DAMAGES[case](stage2)
    for use in (load_checkpoint, lambda place: export_checkpoint(place, tmp_path / "hub")):
        with pytest.raises(CheckpointError) as caught:
            use(stage2)
        message = str(caught.value)
        assert message.startswith(f"{stage2}: ")
        assert "\n" not in message
        assert len(message) < 500
    assert not (tmp_path / "hub").exists()


def test_a_stage_1_checkpoint_gives_no_intensities(stage1):
    with pytest.raises(
        CheckpointError, match=r"a stage-1 checkpoint \(mma\) estimates affect, not intensities"
    ):
        load_checkpoint(stage1)


def test_the_shipped_checkpoint_loads():
    if not (pretrained_folder() / "config.json").is_file():
        pytest.skip("no checkpoint ships with this checkout")
    model, processor = load_pretrained()
    assert processor.num_frames == model.config.num_frames
    assert model.config.calibrated
    assert model.config.simulated_labels


def test_a_checkpoint_with_weights_missing_is_refused(tiny_model, tiny_processor, tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights are missing, for example dense\.weight"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_pickled_weights_alone_is_refused_with_the_way_out(
    tiny_model, tiny_processor, tmp_path
):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin holds pickled weights.*save_file"
    ):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "asking",
    [
        {"backbone": "someone/else", "use_pretrained_backbone": True, "backbone_config": None},
        {"backbone_config": {"model_type": "maskformer", "backbone": "someone/else"}},
    ],
)
def test_a_folder_whose_config_names_a_repository_asks_no_hub(
    tiny_model, asking, tmp_path, monkeypatch
):
    tiny_model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    config["mma_config"] |= asking
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")

    def refuse(*_):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(CheckpointError, match=r"backbone"):
        load_checkpoint(tmp_path)
