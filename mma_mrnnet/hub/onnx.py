"""Export a checkpoint as ONNX: models checked against PyTorch, settings, script and card.

transformers' `OnnxExporter` is not used: it exports a whole `ModelOutput`, unrolls the GRU
frame by frame, and cannot leave out the extractor.
"""

import copy
import os
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from mma_mrnnet.files import replaced_folder, write_json, write_text
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
OPSET = 20  # the default of PyTorch's exporter; needs onnxruntime 1.17
TOLERANCE = 1e-4
BATCHES = (1, 3, 7)
"""Batch sizes of the check; none is the size that the export is traced with."""


class _Extractor(nn.Module):
    def __init__(self, model: MMAModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).affect  # (N, A)


class _GRU(nn.Module):
    """A GRU for export as one ONNX node per layer; PyTorch's exporter would unroll it.

    ONNX orders the gates update, reset, new; PyTorch reset, update, new.
    """

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.hidden_size = gru.hidden_size
        self.num_layers = gru.num_layers
        for number, weights in enumerate(gru.all_weights):
            weight_ih, weight_hh, bias_ih, bias_hh = map(self._reorder_gates, weights)
            bias = torch.cat([bias_ih, bias_hh])
            # The first axis is the direction.
            self.register_buffer(f"weight_ih_{number}", weight_ih.unsqueeze(0))  # (1, 3 H, A)
            self.register_buffer(f"weight_hh_{number}", weight_hh.unsqueeze(0))  # (1, 3 H, H)
            self.register_buffer(f"bias_{number}", bias.unsqueeze(0))  # (1, 6 H)

    def _reorder_gates(self, weight: Tensor) -> Tensor:
        reset, update, new = weight.detach().split(self.hidden_size)
        return torch.cat([update, reset, new])

    def forward(self, values: Tensor) -> tuple[Tensor, None]:
        states = values.transpose(0, 1)  # (T, B, A)
        for number in range(self.num_layers):
            weights = (
                self.get_buffer(f"{name}_{number}") for name in ("weight_ih", "weight_hh", "bias")
            )
            states = torch.onnx.ops.symbolic(
                "GRU",
                (states, *weights),
                # Reset is applied as in PyTorch and cuDNN.
                {"hidden_size": self.hidden_size, "linear_before_reset": 1},
                dtype=states.dtype,
                shape=(states.shape[0], 1, states.shape[1], self.hidden_size),
            ).squeeze(1)  # (T, B, H)
        return states.transpose(0, 1), None  # (B, T, H)


class _Intensities(nn.Module):
    """Stage 2 without the extractor: from affect or features to intensities and logits."""

    def __init__(self, model: MMAMRNNetForIntensity) -> None:
        super().__init__()
        self.model = model

    def forward(self, affect: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(affect=affect, frame_mask=frame_mask)
        return output.intensities, output.logits  # (B, K) both


def _prepare_intensities(model: MMAMRNNetForIntensity) -> _Intensities:
    """Copy stage 2 without the extractor and with `_GRU`; weights are shared."""
    kept = copy.copy(model)
    kept._modules = dict(model._modules)
    kept.mma, kept.rnn = None, copy.copy(model.rnn)
    kept.rnn._modules = {**model.rnn._modules, "gru": _GRU(model.rnn.gru)}
    return _Intensities(kept)


def export_onnx(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write a folder that runs with numpy and onnxruntime only, and return it.

    It holds the models, `settings.json`, `run_onnx.py` and `README.md`. `extractor.onnx` maps
    `pixel_values` (N, 3, S, S) float32 to `affect` (N, A). `intensities.onnx` maps `affect`
    (B, T, A) float32 and `frame_mask` (B, T) bool, real frames first, to `intensities` and
    `logits` (B, K). N and B are free, T is the config's. A stage-1 checkpoint has only the
    first model, a checkpoint for feature tables only the second. Both are float32 and are
    checked against PyTorch before the folder appears.

    Args:
        source: a stage-1 or stage-2 checkpoint, such as `runs/mrnn/model`.
        target: a folder that is new or empty.

    Raises:
        CheckpointError: the source cannot be loaded, the target cannot be used, or outputs
            differ from PyTorch's by more than 1e-4 (relative for outputs above 1).
        ValueError: the extra `onnx` is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ValueError(
            "an export to ONNX needs its extra: pip install 'mma-mrnnet[onnx]' "
            f"({', '.join(missing)} missing)"
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
            network = _Extractor(extractor)
            side = extractor.config.image_size
            inputs = {"pixel_values": torch.zeros(2, 3, side, side)}
            path = folder / EXTRACTOR
            _write(network, inputs, ["affect"], path, _describe(model, path, licence))
            largest = _compare(path, network, _crops(side))
            settings["extractor"]["largest_difference"] = largest
        if not isinstance(model, MMAModel):
            frames = torch.zeros(2, model.config.num_frames, model.config.input_size)
            frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool)
            inputs = {"affect": frames, "frame_mask": frame_mask}
            path = folder / INTENSITIES
            outputs = ["intensities", "logits"]
            facts = _describe(model, path, licence)
            _write(_prepare_intensities(model), inputs, outputs, path, facts)
            largest = _compare(path, _Intensities(model), _clips(model))
            settings["intensities"]["largest_difference"] = largest
        write_json(folder / SETTINGS, settings)
        shutil.copyfile(template_folder("examples") / SCRIPT, folder / SCRIPT)
        write_text(folder / "README.md", _card(model, settings, sources))
    return target


def _check_processor(
    source: str | os.PathLike[str],
    model: Model,
    extractor: MMAModel | None,
    processor: MMAMRNNetVideoProcessor,
) -> None:
    """Raise CheckpointError if the sizes of processor and model differ."""
    side = None if extractor is None else extractor.config.image_size
    size = dict(processor.size)
    if side is not None and (size.get("height"), size.get("width")) != (side, side):
        raise CheckpointError(
            f"{source}: the processor makes crops of {size}, the model reads {side} x {side}"
        )
    if extractor is not model and processor.num_frames != model.config.num_frames:
        raise CheckpointError(
            f"{source}: the processor pads to {processor.num_frames} frames, "
            f"the model reads {model.config.num_frames}"
        )


# The models ------------------------------------------------------------------------------------


def _write(
    network: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    path: Path,
    facts: dict[str, str],
) -> None:
    """Write a network as ONNX with a free batch size and without local paths."""
    import onnx

    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about future changes in PyTorch
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
    model = cast("torch.onnx.ONNXProgram", program).model_proto
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input):
        raise CheckpointError(
            f"{path.name}: PyTorch's exporter tied it to one batch size. Nothing was written"
        )
    _strip(model)
    model.graph.name = path.stem
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def _describe(model: Model, path: Path, licence: str) -> dict[str, str]:
    return {
        "name": f"{model.config.model_type.replace('_', '-')} {path.stem}",
        "version": package_version() or "",
        "license": "terms-of-the-training-data" if licence == "research-only" else licence,
    }


def _strip(message: "onnx.ModelProto") -> None:
    """Remove the exporter's notes (stack traces with paths) at every depth."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip(part)


# The check -------------------------------------------------------------------------------------


@torch.inference_mode()
def _compare(path: Path, network: nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """Return the largest output difference between a file and its network.

    Relative for outputs above 1. Raises CheckpointError above the tolerance and for NaN.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for inputs in batches:
        wanted = network(**inputs)
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        tensors = wanted if isinstance(wanted, tuple) else (wanted,)
        for ours, tensor in zip(found, tensors, strict=True):
            theirs = tensor.numpy()
            errors = np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1.0)
            difference = float(errors.max())
            if not difference <= TOLERANCE:  # NaN too
                raise CheckpointError(
                    f"{path.name}: its outputs differ from PyTorch's by {difference:.1e}; "
                    f"at most {TOLERANCE:.0e} is accepted. Nothing was written"
                )
            largest = max(largest, difference)
    return largest


def _crops(side: int) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [
        {"pixel_values": 2 * torch.rand(size, 3, side, side, generator=draw) - 1}
        for size in BATCHES
    ]


def _clips(model: MMAMRNNetForIntensity) -> list[dict[str, Tensor]]:
    """Make batches of clips of all lengths, including 0, with NaN in the padding."""
    config, draw = model.config, torch.Generator().manual_seed(0)
    most, batches = config.num_frames, []
    for size in BATCHES:
        affect = torch.rand(size, most, config.input_size, generator=draw)  # (B, T, A)
        if config.feature_names is not None:
            affect = model.feature_mean + model.feature_scale * (4 * affect - 2)
        lengths = torch.randint(0, most + 1, (size,), generator=draw)
        lengths[:2] = torch.tensor([most, 0])[:size]
        frame_mask = torch.arange(most) < lengths.unsqueeze(1)  # (B, T)
        # Without a mask the padding has an effect: use zeros, as the processor does.
        padding = 0.0 if config.temporal_pooling == "padded" else float("nan")
        affect = torch.where(frame_mask.unsqueeze(-1), affect, padding)
        batches.append({"affect": affect, "frame_mask": frame_mask})
    return batches


# Settings and card -----------------------------------------------------------------


def _settings(
    model: Model,
    extractor: MMAModel | None,
    processor: MMAMRNNetVideoProcessor,
) -> dict:
    """Return what a program needs to run the models; None for a missing model."""
    return {
        "package": f"mma-mrnnet {package_version()}",
        "extractor": None if extractor is None else _extractor_settings(extractor, processor),
        "intensities": None
        if isinstance(model, MMAModel)
        else _intensity_settings(model, processor),
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
    """Return the folder's README: files, inputs, outputs, and how they were checked."""
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
