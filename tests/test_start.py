"""What starting costs: nothing heavy is imported before it is used, and transformers still finds our classes."""

import os
import subprocess
import sys

import pytest

from mma_mrnnet.cli import COMMANDS
from mma_mrnnet.cli.training import CROPPED_RATE, CROPPED_SIZE
from mma_mrnnet.crops.store import CropSettings
from mma_mrnnet.hub.checkpoints import pretrained_folder
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig, MMAMRNNetConfig

HEAVY = (
    *("torch", "torchvision", "transformers", "huggingface_hub", "accelerate", "datasets"),
    *("numpy", "pandas", "scipy", "pyarrow", "cv2", "av", "PIL", "onnxruntime"),
)
SHIPPED = str(pretrained_folder())


def run_python(program, *words, code=0):
    """Run a program in a new process; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


COMMAND = f"""
import sys
from mma_mrnnet.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("heavy:", *[name for name in {HEAVY} if name in sys.modules])
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        *(([command, "--help"], 0) for command in COMMANDS),
        ([], 2),
        (["guess"], 2),
        (["predict"], 2),
        (["predict", "clip.mp4", "--fps", "fast"], 2),
        (["predict", "clip.mp4", "--what"], 2),
        (["predict", "clip.mp4", "--out", "results.xlsx"], 1),
        (["predict", "clip.mp4", "--window", "3"], 1),
        (["compare", "clip.mp4"], 2),
    ],
    ids=str,
)
def test_help_and_wrong_words_import_nothing_heavy(words, code):
    assert run_python(COMMAND, *words, code=code).splitlines()[-1].strip() == "heavy:"


def test_the_version_is_that_of_the_package():
    import mma_mrnnet

    words = run_python(COMMAND, "--version").splitlines()
    assert words[0] == f"mma-mrnnet {mma_mrnnet.__version__}"


def test_the_defaults_of_crop_are_those_of_the_configs():
    assert CROPPED_RATE.fps == MMAMRNNetConfig().sampling_fps == CropSettings().fps
    assert CROPPED_SIZE == MMAConfig().image_size == CropSettings().size


def test_importing_the_package_imports_nothing_heavy_and_lists_its_names():
    program = f"""
import sys, mma_mrnnet
assert not [name for name in {HEAVY} if name in sys.modules]
assert set(mma_mrnnet.__all__) <= set(dir(mma_mrnnet))
assert not hasattr(mma_mrnnet, "no_such_name")
"""
    run_python(program)


# Each program ends with our classes in transformers' hands, by another order of imports.
LOADED = """
from transformers import AutoConfig, AutoModel, AutoVideoProcessor
model = AutoModel.from_pretrained(sys.argv[1])
processor = AutoVideoProcessor.from_pretrained(sys.argv[1])
assert type(model).__module__ == "mma_mrnnet.model.modeling_mma_mrnnet", type(model)
assert type(processor).__module__ == "mma_mrnnet.model.video_processing_mma_mrnnet"
import mma_mrnnet
assert type(model) is mma_mrnnet.MMAMRNNetForIntensity
assert type(AutoModel.from_config(mma_mrnnet.MMAConfig())) is mma_mrnnet.MMAModel
from transformers import AutoModelForImageClassification, AutoModelForVideoClassification
for auto in (AutoModelForImageClassification, AutoModelForVideoClassification):
    config = mma_mrnnet.MMAConfig if "Image" in auto.__name__ else mma_mrnnet.MMAMRNNetConfig
    assert auto._model_mapping[config].__module__.startswith("mma_mrnnet.")
from transformers import pipeline
pipe = pipeline("facial-expression-intensity")
assert type(pipe).__module__ == "mma_mrnnet.prediction.pipeline"
for name in mma_mrnnet.__all__:
    getattr(mma_mrnnet, name)
from mma_mrnnet import registration
assert set(registration._WAITING) <= {"transformers.modelcard"}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        "import transformers, mma_mrnnet",
        "from transformers import AutoModel; import mma_mrnnet",
        "import mma_mrnnet, importlib; from transformers import pipeline; importlib.reload(mma_mrnnet)",
        "import mma_mrnnet.model.modeling_mma_mrnnet",
        "import mma_mrnnet.prediction.pipeline",
    ],
)
def test_the_auto_classes_know_ours_in_whatever_order_things_are_imported(start):
    run_python(f"import sys\n{start}\n{LOADED}", SHIPPED)


@pytest.mark.slow
def test_a_program_that_asks_only_transformers_loads_nothing_of_ours():
    program = """
import sys
from transformers import AutoConfig
assert not [name for name in sys.modules if name.startswith("mma_mrnnet.")]
assert "registration" not in str(sys.meta_path)
try:
    AutoConfig.from_pretrained(sys.argv[1])
except ValueError as error:
    assert "mma_mrnnet" in str(error)
else:
    raise AssertionError("a class of ours was found")
"""
    run_python(program, SHIPPED)


@pytest.mark.slow
def test_threads_that_import_at_once_find_our_classes():
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
import mma_mrnnet
import transformers  # which itself cannot be imported by two threads at once

def load(number):
    if number % 2:
        from transformers import AutoModel
        return type(AutoModel.from_pretrained(sys.argv[1])).__name__
    return type(mma_mrnnet.load_pretrained()[0]).__name__

with ThreadPoolExecutor(4) as threads:
    assert set(threads.map(load, range(4))) == {"MMAMRNNetForIntensity"}
"""
    run_python(program, SHIPPED)


@pytest.mark.slow
def test_our_classes_and_objects_reach_a_spawned_process(tmp_path):
    program = tmp_path / "spawn.py"
    program.write_text(
        """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def names_of(kind, config, *objects):
    from transformers import AutoModel
    model = AutoModel.from_config(config)
    return [type(each).__name__ for each in (kind(config), model, *objects)]

if __name__ == "__main__":
    import mma_mrnnet
    import pandas as pd
    model, processor = mma_mrnnet.load_pretrained()
    prediction = mma_mrnnet.VideoPrediction("a.mp4", {"Fear": 0.5}, pd.DataFrame(), 1.0)
    given = (mma_mrnnet.MMAModel, mma_mrnnet.MMAConfig(), model, processor, prediction)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        print(*pool.submit(names_of, *given).result())
"""
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [
        *("MMAModel", "MMAModel", "MMAMRNNetForIntensity", "MMAMRNNetVideoProcessor"),
        "VideoPrediction",
    ]
