"""Write the ONNX files that predictions run without PyTorch, and check them against PyTorch.

transformers' `OnnxExporter` is not used: it exports a whole `ModelOutput`, unrolls the GRU
frame by frame, and cannot leave out the extractor.
"""

import copy
import json
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
)
from mma_mrnnet.hub.checkpoints import Model, check_target, extractor_of, load_either
from mma_mrnnet.hub.facts import (
    EXTRACTOR,
    INTENSITIES,
    SETTINGS,
    WEIGHTS,
    CheckpointError,
    CheckpointFacts,
    checkpoint_digest,
    has_contributions,
)
from mma_mrnnet.hub.licence import licence_fields, weights_licence
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import Provenance

if TYPE_CHECKING:
    import onnx

OPSET = 20  # the default of PyTorch's exporter; needs onnxruntime 1.17
TOLERANCE = 1e-4
BATCHES = (1, 3, 7)
"""Batch sizes of the check; none is the size that the export is traced with."""
_LEAST_SHARED = 1024  # bytes; smaller tensors lie in the ONNX file


class _Extractor(nn.Module):
    """Stage 1 with the processor's scaling: crops (N, S, S, 3) uint8 to affect (N, A)."""

    def __init__(self, model: MMAModel, processor: MMAMRNNetVideoProcessor) -> None:
        super().__init__()
        self.model, self.processor = model, processor

    def forward(self, crops: Tensor) -> Tensor:
        return self.model(self.processor.scale(crops)).affect


class _Affine(nn.Module):
    """Batch normalisation in eval mode, as x * scale + shift.

    onnxruntime folds it into the convolution when it loads the file. PyTorch's exporter would
    fold it when it writes, and the convolution's weights would not be those of the checkpoint.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # (C,)
        shift = norm.bias.double() - norm.running_mean.double() * scale
        for name, value in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, value.detach().float()[:, None, None])  # (C, 1, 1)

    def forward(self, values: Tensor) -> Tensor:
        return values * self.get_buffer("scale") + self.get_buffer("shift")


def _prepare_extractor(model: MMAModel, processor: MMAMRNNetVideoProcessor) -> _Extractor:
    """Copy stage 1 with `_Affine` for each batch normalisation."""
    kept = copy.deepcopy(model)
    for name, module in list(kept.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, own_name = name.rpartition(".")
            setattr(kept.get_submodule(parent), own_name, _Affine(module))
    return _Extractor(kept, processor)


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
    """Stage 2 without the extractor: from affect or features to all that a prediction shows."""

    def __init__(self, model: MMAMRNNetForIntensity) -> None:
        super().__init__()
        self.model = model

    def forward(self, affect: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        output = self.model(affect=affect, frame_mask=frame_mask)
        found = (output.intensities, output.logits)  # (B, K) both
        if not has_contributions(self.model):
            return found
        each = self.model.frame_contributions(affect=affect, frame_mask=frame_mask)
        return *found, each.contributions, each.constant  # (B, T, K), (B, K)


OUTPUTS = ("intensities", "logits", "contributions", "constant")


def _prepare_intensities(model: MMAMRNNetForIntensity) -> _Intensities:
    """Copy stage 2 without the extractor and with `_GRU`; weights are shared."""
    kept = copy.copy(model)
    kept._modules = dict(model._modules)
    kept.mma, kept.rnn = None, copy.copy(model.rnn)
    kept.rnn._modules = {**model.rnn._modules, "gru": _GRU(model.rnn.gru)}
    return _Intensities(kept)


def export_onnx(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write a checkpoint's networks as ONNX files, and return their folder.

    `extractor.onnx` maps `crops` (N, S, S, 3) uint8 RGB to `affect` (N, A) float32, scaling
    included. `intensities.onnx` maps `affect` (B, T, A) float32 and `frame_mask` (B, T) bool, real
    frames first, to `intensities`, `logits`, `contributions` (B, T, K) and `constant` (see
    `FrameContributions`; absent with `padded` pooling). N and B are free, T is the config's.
    `settings.json` has the `CheckpointFacts`. A stage-1 checkpoint has only the first model, a
    checkpoint for feature tables only the second. All files are checked against PyTorch before
    they appear.

    Args:
        source: a stage-1 or stage-2 checkpoint, such as `runs/mrnn/model`.
        target: a folder that is new or empty: the files hold their weights, and a card is written.
            Or the source itself, a folder: the files are added to it, and read its weights.

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
    in_place = target.is_dir() and Path(source).exists() and target.samefile(source)
    if not in_place:
        check_target(target)
    model, processor = load_either(source)
    model.float()
    _check_processor(source, model, extractor_of(model), processor)
    sources = CheckpointResults.read(Path(source)).sources(model)
    if in_place:
        add_onnx(model, processor, sources, target)
        return target
    with replaced_folder(target) as folder:
        settings = _write_all(model, processor, sources, folder)
        write_json(folder / SETTINGS, settings)
        write_text(folder / "README.md", _card(model, processor, settings, sources))
    return target


def add_onnx(
    model: Model, processor: MMAMRNNetVideoProcessor, sources: list[Provenance], folder: Path
) -> None:
    """Add ONNX files and their settings to the folder of a checkpoint, whose weights they read.

    Raises CheckpointError if its weights lie in several files, or as in `export_onnx`.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(
            f"{folder}: has no {WEIGHTS}, whose weights the ONNX files would read"
        )
    for name in (SETTINGS, EXTRACTOR, INTENSITIES):  # settings first: without them nothing is read
        (folder / name).unlink(missing_ok=True)
    settings = _write_all(model, processor, sources, folder, weights)
    write_json(folder / SETTINGS, {**settings, "checkpoint_sha256": checkpoint_digest(folder)})


def _write_all(
    model: Model,
    processor: MMAMRNNetVideoProcessor,
    sources: list[Provenance],
    folder: Path,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Write and check the ONNX files of a checkpoint; return the settings."""
    largest: dict[str, float] = {}
    facts, licence = CheckpointFacts.of(model, processor), weights_licence(sources)
    extractor = extractor_of(model)
    if extractor is not None:
        side = extractor.config.image_size
        inputs = {"crops": torch.zeros(2, side, side, 3, dtype=torch.uint8)}
        path = folder / EXTRACTOR
        network: nn.Module = _prepare_extractor(extractor, processor)
        _write(network, inputs, path, _describe(model, path, licence), weights)
        largest[EXTRACTOR] = _compare(path, _Extractor(extractor, processor), _crops(side))
    if not isinstance(model, MMAModel):
        frames = torch.zeros(2, model.config.num_frames, model.config.input_size)
        frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool)
        path = folder / INTENSITIES
        network = _prepare_intensities(model)
        described = _describe(model, path, licence)
        _write(network, {"affect": frames, "frame_mask": frame_mask}, path, described, weights)
        largest[INTENSITIES] = _compare(path, _Intensities(model), _clips(model))
    return {
        "package": f"mma-mrnnet {package_version()}",
        **facts.to_json(),
        "notes": facts.caveats(),
        "affect_notes": facts.affect_caveats(),
        "largest_difference": largest,
    }


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
    path: Path,
    facts: dict[str, str],
    weights: Path | None,
) -> None:
    """Write a network as ONNX with a free batch size and without local paths.

    With `weights`, the file refers to the tensors of that safetensors file beside it.
    """
    import onnx

    batch = torch.export.Dim("batch")
    outputs = network.eval()(**inputs)
    names = OUTPUTS[: len(outputs)] if isinstance(outputs, tuple) else ("affect",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about future changes in PyTorch
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(names),
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
    if weights is not None:
        _share_weights(model, weights)
    onnx.save_model(model, path)


def _share_weights(model: "onnx.ModelProto", weights: Path) -> None:
    """Replace tensors of an ONNX model by references to equal ones in a safetensors file.

    A safetensors file is 8 bytes with the length of the header, the header, and the tensors.
    """
    import onnx

    content = weights.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    places = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            first, end = (start + offset for offset in entry["data_offsets"])
            places[entry["dtype"], content[first:end]] = first
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        data = values.tobytes()
        first = places.get(("F32", data)) if values.dtype == np.float32 else None
        if first is None or len(data) < _LEAST_SHARED:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", first), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))


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
        {"crops": torch.randint(256, (size, side, side, 3), generator=draw, dtype=torch.uint8)}
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


# The card --------------------------------------------------------------------------------------


def _card(
    model: Model,
    processor: MMAMRNNetVideoProcessor,
    settings: dict[str, Any],
    sources: list[Provenance],
) -> str:
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
        facts=CheckpointFacts.of(model, processor),
        **settings,
        opset=OPSET,
        tolerance=f"{TOLERANCE:.0e}",
        batches=BATCHES,
        torch_version=torch.__version__.split("+")[0],
        onnxruntime_version=onnxruntime.__version__,
    )
