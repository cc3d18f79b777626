"""Make transformers find our classes, without importing them before they are looked up.

`import mma_mrnnet` must not cost the seconds that transformers and PyTorch take. So a finder waits
until an Auto module of transformers is imported, by whom ever, and then adds entries to its
mappings that import our classes on their first use.
"""

import sys
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

TASK = "facial-expression-intensity"
"""The task of `transformers.pipeline` that reads a video and returns its intensities."""

_STAGE_1 = "mma_mrnnet.model.configuration_mma_mrnnet.MMAConfig"
_STAGE_2 = "mma_mrnnet.model.configuration_mma_mrnnet.MMAMRNNetConfig"
_CONFIGS = {"mma": _STAGE_1, "mma_mrnnet": _STAGE_2}
_MODELS = {
    "AutoModel": {
        _STAGE_1: "mma_mrnnet.model.modeling_mma.MMAModel",
        _STAGE_2: "mma_mrnnet.model.modeling_mma_mrnnet.MMAMRNNetForIntensity",
    },
    "AutoModelForImageClassification": {
        _STAGE_1: "mma_mrnnet.model.modeling_mma.MMAForImageClassification"
    },
    "AutoModelForVideoClassification": {
        _STAGE_2: "mma_mrnnet.model.modeling_mma_mrnnet.MMAMRNNetForVideoClassification"
    },
}
_PROCESSOR = "mma_mrnnet.model.video_processing_mma_mrnnet.MMAMRNNetVideoProcessor"
_PIPELINE = "mma_mrnnet.prediction.pipeline.FacialExpressionIntensityPipeline"


def register_when_imported() -> None:
    """Register with the Auto modules that are imported already, and with the others later."""
    for name in [name for name in _WAITING if name in sys.modules]:
        # Not sys.modules[name]: another thread may be in the middle of importing it.
        _register(import_module(name))
    if _WAITING and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(module: ModuleType) -> None:
    if register := _WAITING.pop(module.__name__, None):
        register(module)


def _register_configs(module: ModuleType) -> None:
    loaders = {model_type: partial(_load, path) for model_type, path in _CONFIGS.items()}
    _extend(module.CONFIG_MAPPING, loaders)


def _register_models(module: ModuleType) -> None:
    for auto_class, models in _MODELS.items():
        loaders = {config: partial(_load, path) for config, path in models.items()}
        _extend(getattr(module, auto_class)._model_mapping, loaders)


def _register_processor(module: ModuleType) -> None:
    _extend(module.VIDEO_PROCESSOR_MAPPING, {_STAGE_2: lambda: {"torchvision": _load(_PROCESSOR)}})


def _register_pipeline(module: ModuleType) -> None:
    module.PIPELINE_REGISTRY.supported_tasks[TASK] = {
        "impl": _PIPELINE,  # transformers imports it by this name
        "pt": (module.AutoModel,),
        "default": {"model": (str(Path(__file__).with_name("pretrained")), "main")},
        "type": "video",
    }


def _register_card(module: ModuleType) -> None:
    # `Trainer` has no hook between its card and the upload, so this replaces the method that
    # makes the card's summary.
    make_summary = module.TrainingSummary.from_trainer

    def from_trainer(trainer: Any, **settings: Any) -> Any:
        summary = make_summary(trainer, **settings)
        _load("mma_mrnnet.hub.export.use_card")(summary, trainer)
        return summary

    module.TrainingSummary.from_trainer = from_trainer


_WAITING: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.video_processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
    "transformers.modelcard": _register_card,
}
"""What to do once a module is imported; removed when done."""


def _extend(mapping: Any, loaders: Mapping[str, Callable[[], Any]]) -> None:
    # Where the mapping's own `register` puts classes, which must be imported for that.
    mapping._extra_content = _OnDemand(mapping._extra_content, loaders)


class _OnDemand(UserDict[Any, Any]):
    """A dictionary with entries that are loaded when they are looked up.

    `loaders` is by key, or by the path of a key that is a class.
    """

    def __init__(
        self, content: Mapping[Any, Any], loaders: Mapping[str, Callable[[], Any]]
    ) -> None:
        self._loaders = loaders
        super().__init__(content)

    def __missing__(self, key: Any) -> Any:
        self[key] = value = self._loaders[_path_of(key)]()
        return value

    def __contains__(self, key: object) -> bool:
        return key in self.data or _path_of(key) in self._loaders

    def __iter__(self) -> Iterator[Any]:
        for path in self._loaders:
            _ = self[_load(path) if "." in path else path]
        return super().__iter__()

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _path_of(key: Any) -> str:
    return key if isinstance(key, str) else f"{key.__module__}.{key.__qualname__}"


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


class _Finder(MetaPathFinder):
    """Finds the modules that we wait for as the other finders do, and wraps their loaders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec that registers after the import; None for all other modules."""
        if fullname not in _WAITING:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """Executes a module by its own loader, and then registers our classes with it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module by its own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, which from then on has its own loader, and register."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        # A lazy module of transformers puts another object into its place.
        _register(sys.modules[module.__name__])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
