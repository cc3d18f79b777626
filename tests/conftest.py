"""Fixtures shared by all tests: everything offline, on one thread, seeded, with models of a few thousand weights."""

import importlib.util
import logging
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "CUDA_VISIBLE_DEVICES", ""
)  # tests are on the CPU, so that their numbers do not depend on a card

from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

from mma_mrnnet import (
    MMAConfig,
    MMAModel,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetVideoProcessor,
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY_BACKBONE = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
}

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def log_as_it_comes():
    """The command line raises the package's log level for its process; no test inherits that from another."""
    logging.getLogger("mma_mrnnet").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True, scope="session")
def own_cache_of_datasets(tmp_path_factory):
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")


@pytest.fixture
def settings_kept():
    """What the command line's `main` sets for its process stays inside each test."""
    logger, threads = (
        logging.getLogger("mma_mrnnet"),
        (torch.get_num_threads(), cv2.getNumThreads()),
    )
    level, verbosity = logger.level, transformers_logging.get_verbosity()
    yield
    logger.setLevel(level)
    transformers_logging.set_verbosity(verbosity)
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


@pytest.fixture
def tiny_mma_config():
    return MMAConfig(backbone_config=dict(TINY_BACKBONE), image_size=32)


@pytest.fixture
def tiny_config(tiny_mma_config):
    return MMAMRNNetConfig(mma_config=tiny_mma_config, num_frames=4, hidden_size=8, dense_size=6)


@pytest.fixture
def tiny_mma(tiny_mma_config):
    return MMAModel(tiny_mma_config).eval()


@pytest.fixture
def tiny_model(tiny_config):
    return MMAMRNNetForIntensity(tiny_config).eval()


@pytest.fixture
def tiny_processor():
    return MMAMRNNetVideoProcessor(size={"height": 32, "width": 32}, num_frames=4)


@pytest.fixture(scope="session")
def space_app():
    """The Space's app.py as a module, which lies outside the package."""
    path = Path(__file__).resolve().parents[1] / "spaces_demo" / "app.py"
    spec = importlib.util.spec_from_file_location("space_app", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_faces():
    return _shared("faces")


@pytest.fixture(scope="session")
def shared_clips():
    return _shared("clips")


@pytest.fixture(scope="session")
def shared_faulty():
    return _shared("faulty")


def _shared(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"the folder shared/data/{name} beside the checkout is absent")
    return SHARED / name
