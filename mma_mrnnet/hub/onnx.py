"""A checkpoint as ONNX: its networks, checked against PyTorch, their numbers, and a script that needs neither."""

import copy
import json
import os
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mma_mrnnet.files import replaced_folder
from mma_mrnnet.hub.cards import (
    CheckpointResults,
    card_data,
    package_version,
    render_card,
    task_of,
    template_folder,
)
from mma_mrnnet.hub.checkpoints import CheckpointError, Model, extractor_of, load_either
from mma_mrnnet.hub.export import check_target
from mma_mrnnet.hub.licence import licence_fields, weights_licence
from mma_mrnnet.model.labels import action_unit_name, affect_names
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import Provenance

if TYPE_CHECKING:
    import onnx

EXTRACTOR, INTENSITIES, SETTINGS, SCRIPT = (
    "extractor.onnx",
    "intensities.onnx",
    "settings.json",
    "run_onnx.py",
)
OPSET = 20  # what PyTorch's exporter writes by itself; onnxruntime reads it from 1.17 on
TOLERANCE = 1e-4
BATCHES = (1, 3, 7)
"""Sizes of the batches that the check runs; none is the one that the export was traced with."""


class _Extractor(nn.Module):
    """Crops to affect."""

    def __init__(self, model: MMAModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).affect  # (N, A)


class _GRU(nn.Module):
    """A GRU as one node of ONNX a layer; the exporter itself would unroll it frame by frame before it finds the node.

    Outside an export it computes nothing. ONNX orders the gates update, reset, new; PyTorch reset, update, new.
    """

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.hidden_size = gru.hidden_size
        self.layers = nn.ModuleList(nn.Module() for _ in range(gru.num_layers))
        for number, layer in enumerate(self.layers):
            weight_ih, weight_hh, bias_ih, bias_hh = (
                self._reordered(weight.detach()) for weight in gru.all_weights[number]
            )
            layer.register_buffer(
                "weight_ih", weight_ih.unsqueeze(0)
            )  # (1, 3 H, A): of one direction
            layer.register_buffer("weight_hh", weight_hh.unsqueeze(0))  # (1, 3 H, H)
            layer.register_buffer("bias", torch.cat([bias_ih, bias_hh]).unsqueeze(0))  # (1, 6 H)

    def _reordered(self, weight: Tensor) -> Tensor:
        reset, update, new = weight.split(self.hidden_size)
        return torch.cat([update, reset, new])

    def forward(self, values: Tensor) -> tuple[Tensor, None]:
        states = values.transpose(0, 1)  # (T, B, A)
        attributes = {
            "hidden_size": self.hidden_size,
            "linear_before_reset": 1,
        }  # as PyTorch, and cuDNN, apply the reset
        for layer in self.layers:
            states = torch.onnx.ops.symbolic(
                "GRU",
                (states, layer.weight_ih, layer.weight_hh, layer.bias),
                attributes,
                dtype=states.dtype,
                shape=(states.shape[0], 1, states.shape[1], self.hidden_size),
            ).squeeze(1)  # (T, B, H)
        return states.transpose(0, 1), None  # (B, T, H)


class _Intensities(nn.Module):
    """A clip's affect, or features, to its intensities: scaling, GRU, mask, dense layers and calibration."""

    def __init__(self, model: MMAMRNNetForIntensity) -> None:
        super().__init__()
        self.model = model

    def forward(self, affect: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(affect=affect, frame_mask=frame_mask)
        return output.intensities, output.logits  # (B, K) both


def _traced(model: MMAMRNNetForIntensity) -> _Intensities:
    """A copy to export, without the extractor and with the GRU that ONNX has."""
    kept = copy.copy(model)
    kept._modules = dict(model._modules)
    kept.mma, kept.rnn = None, copy.copy(model.rnn)
    kept.rnn._modules = dict(model.rnn._modules)
    kept.rnn.gru = _GRU(model.rnn.gru)
    return _Intensities(kept)


def export_onnx(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Writes a folder that runs with numpy and onnxruntime alone: models, `settings.json`, `run_onnx.py`, `README.md`.

    `extractor.onnx` takes `pixel_values` (N, 3, S, S) float32 and gives `affect` (N, A). `intensities.onnx` takes
    `affect` (B, T, A) float32 and `frame_mask` (B, T) bool, real frames first, and gives `intensities` and `logits`
    (B, K). N and B are free, T is the config's. A stage-1 checkpoint has no second model, and one that reads tables of
    features no first. Both are float32, and run against PyTorch before anything stands at `target`.

    Args:
        source: a stage-1 or stage-2 checkpoint, such as `runs/mrnn/model`.
        target: a folder that does not exist yet, or is empty.

    Returns:
        `target`.

    Raises:
        CheckpointError: the source cannot be loaded, the target holds something, or a model's outputs differ from
            PyTorch's by more than 1e-4 (of their size, where that exceeds 1).
        ValueError: the extra `onnx` is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"an export to ONNX needs its extra: pip install 'mma-mrnnet[onnx]' ({', '.join(missing)} missing)"
        )
    target = Path(target)
    check_target(target)
    model, processor = load_either(source)
    model.float()
    extractor = extractor_of(model)
    _check_processor(source, model, extractor, processor)
    sources = CheckpointResults.read(Path(source)).sources(model)
    licence = weights_licence(sources)
    settings = _settings(model, extractor, processor)
    with replaced_folder(target) as folder:
        if extractor is not None:
            side = extractor.config.image_size
            path = folder / EXTRACTOR
            _write(
                _Extractor(extractor),
                {"pixel_values": torch.zeros(2, 3, side, side)},
                ["affect"],
                path,
                licence,
            )
            settings["extractor"]["largest_difference"] = _checked(
                path, _Extractor(extractor), _crops(side)
            )
        if extractor is not model:
            config, path = model.config, folder / INTENSITIES
            frames = torch.zeros(2, config.num_frames, config.input_size)
            inputs = {
                "affect": frames,
                "frame_mask": torch.ones(frames.shape[:2], dtype=torch.bool),
            }
            _write(_traced(model), inputs, ["intensities", "logits"], path, licence)
            settings["intensities"]["largest_difference"] = _checked(
                path, _Intensities(model), _clips(model)
            )
        (folder / SETTINGS).write_text(
            json.dumps(settings, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        shutil.copyfile(template_folder("examples") / SCRIPT, folder / SCRIPT)
        (folder / "README.md").write_text(_card(model, settings, sources), encoding="utf-8")
    return target


def _check_processor(
    source: str | os.PathLike[str],
    model: Model,
    extractor: MMAModel | None,
    processor: MMAMRNNetVideoProcessor,
) -> None:
    """Refuses a processor whose sizes are not the model's: the script beside the models could not do as it does."""
    side = None if extractor is None else extractor.config.image_size
    size = dict(processor.size)
    if side is not None and (size.get("height"), size.get("width")) != (side, side):
        raise CheckpointError(
            f"{source}: the processor makes crops of {size}, the model reads {side} x {side}"
        )
    if extractor is not model and processor.num_frames != model.config.num_frames:
        raise CheckpointError(
            f"{source}: the processor pads to {processor.num_frames} frames, the model reads {model.config.num_frames}"
        )


# The models --------------------------------------------------------------------------------------------------------


def _write(
    network: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    path: Path,
    licence: str,
) -> None:
    """One ONNX file of a network, its batch free, that says nothing of the machine it was made on."""
    import onnx

    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of coming changes inside PyTorch
        program = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input):
        raise CheckpointError(
            f"{path.name}: PyTorch's exporter tied it to one batch size. Nothing was written"
        )
    _strip(model)
    model.graph.name = path.stem
    facts = {
        "name": f"{network.model.config.model_type.replace('_', '-')} {path.stem}",
        "version": package_version(),
        "license": licence,
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def _strip(message: "onnx.ModelProto") -> None:
    """Takes out, at every depth, what the exporter notes of the source code: stack traces with this machine's paths."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip(part)


# The check ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def _checked(path: Path, network: nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """The largest difference between a file's outputs and its network's: of their size, where that exceeds 1.

    Raises:
        CheckpointError: it exceeds the tolerance, or an output is not a number.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for inputs in batches:
        wanted = network(**inputs)
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        for ours, theirs in zip(
            found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True
        ):
            difference = float(
                (np.abs(ours - theirs.numpy()) / np.maximum(np.abs(theirs.numpy()), 1.0)).max()
            )
            if not difference <= TOLERANCE:  # NaN too
                raise CheckpointError(
                    f"{path.name}: its outputs differ from PyTorch's by {difference:.1e}; at most {TOLERANCE:.0e} is "
                    "accepted. Nothing was written"
                )
            largest = max(largest, difference)
    return largest


def _crops(side: int) -> list[dict[str, Tensor]]:
    """Batches of noise in the range of crops."""
    draw = torch.Generator().manual_seed(0)
    return [
        {"pixel_values": 2 * torch.rand(size, 3, side, side, generator=draw) - 1}
        for size in BATCHES
    ]


def _clips(model: MMAMRNNetForIntensity) -> list[dict[str, Tensor]]:
    """Batches of clips of every kind of length, one without a frame among them, with NaN in the padding."""
    config, draw = model.config, torch.Generator().manual_seed(0)
    most, batches = config.num_frames, []
    for size in BATCHES:
        affect = torch.rand(size, most, config.input_size, generator=draw)  # (B, T, A)
        if config.feature_names is not None:
            affect = model.feature_mean + model.feature_scale * (
                4 * affect - 2
            )  # where such features lie
        lengths = torch.randint(0, most + 1, (size,), generator=draw)
        lengths[:2] = torch.tensor([most, 0])[:size]
        frame_mask = torch.arange(most) < lengths.unsqueeze(1)  # (B, T)
        # Without a mask what stands in padded frames counts: there zeros, as the processor pads.
        padding = 0.0 if config.temporal_pooling == "padded" else float("nan")
        batches.append(
            {
                "affect": torch.where(frame_mask.unsqueeze(-1), affect, padding),
                "frame_mask": frame_mask,
            }
        )
    return batches


# What stands beside the models -------------------------------------------------------------------------------------


def _settings(
    model: Model,
    extractor: MMAModel | None,
    processor: MMAMRNNetVideoProcessor,
) -> dict:
    """What a reader of the two files has to know; None in the place of a model that is not there."""
    return {
        "package": f"mma-mrnnet {package_version()}",
        "extractor": None if extractor is None else _extractor_settings(extractor, processor),
        "intensities": None if extractor is model else _intensity_settings(model, processor),
    }


def _extractor_settings(extractor: MMAModel, processor: MMAMRNNetVideoProcessor) -> dict:
    config = extractor.config
    scaling, normalising = processor.do_rescale, processor.do_normalize
    notes = []
    prior_only = list(map(action_unit_name, config.prior_only_action_units))
    if prior_only:
        notes.append(f"{', '.join(prior_only)}: prior only, no label ever reached them")
    if config.untrained_outputs:
        notes.append(f"nothing taught {', '.join(config.untrained_outputs)}: arbitrary numbers")
    return {
        "file": EXTRACTOR,
        "image_size": config.image_size,
        "rescale_factor": processor.rescale_factor if scaling else 1.0,
        "image_mean": list(processor.image_mean) if normalising else [0.0] * 3,
        "image_std": list(processor.image_std) if normalising else [1.0] * 3,
        "affect_names": list(affect_names(config.action_units)),
        "action_units": list(config.action_units),
        "prior_only": prior_only,
        "notes": notes,
    }


def _intensity_settings(model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor) -> dict:
    config = model.config
    return {
        "file": INTENSITIES,
        "num_frames": config.num_frames,
        "sampling_fps": config.sampling_fps,
        "length_policy": processor.length_policy,
        "input_names": config.input_names,
        "reads_features": config.feature_names is not None,
        "masked": config.temporal_pooling != "padded",
        "label_names": config.label_names,
        "output_activation": config.output_activation,
        "calibrated": config.calibrated,
        "relative": config.relative_labels,
        "simulated": config.simulated_labels,
        "notes": config.caveats(),
    }


def _card(model: Model, settings: dict, sources: list[Provenance]) -> str:
    """The folder's README: what is inside, what goes in and comes out, and how it was checked."""
    import onnxruntime

    name = model.config.model_type.replace("_", "-")
    data = card_data(
        f"{name}-onnx",
        licence_fields(weights_licence(sources)),
        library_name="onnx",
        pipeline_tag=task_of(model.config),
        tags=["onnx", "facial-expression", "affective-computing", model.config.model_type],
    )
    return render_card(
        "onnx",
        data,
        sources=sources,
        **settings,
        opset=OPSET,
        tolerance=f"{TOLERANCE:.0e}",
        batches=BATCHES,
        torch_version=torch.__version__.split("+")[0],
        onnxruntime_version=onnxruntime.__version__,
    )
