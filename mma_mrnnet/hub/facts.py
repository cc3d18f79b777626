"""What predictions need to know about a checkpoint; needs neither PyTorch nor transformers."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mma_mrnnet.model.labels import action_unit_name, affect_names, caveats

if TYPE_CHECKING:
    from mma_mrnnet.model.modeling_mma import MMAModel
    from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor

WEIGHTS = "model.safetensors"
CONFIGS = ("config.json", "video_preprocessor_config.json")
EXTRACTOR, INTENSITIES, SETTINGS = "extractor.onnx", "intensities.onnx", "settings.json"
"""The ONNX files of a checkpoint; see `hub.onnx.export_onnx`."""


class CheckpointError(ValueError):
    """A checkpoint cannot be loaded or exported; the message starts with its location."""


def pretrained_folder() -> Path:
    """Return the folder of the bundled checkpoint."""
    return Path(str(files("mma_mrnnet") / "pretrained"))


def checkpoint_digest(folder: Path) -> str:
    """Return a SHA-256 of the files of a checkpoint that its ONNX files were made from."""
    digest = hashlib.sha256()
    for name in (*CONFIGS, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a folder's ONNX files; None if it has none.

    Raises CheckpointError if the settings cannot be read, or if the files were made from other
    weights than the folder now holds.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text("utf-8"))
        CheckpointFacts.from_json(settings)
        wanted = settings.get("checkpoint_sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no settings of ONNX files: {error}") from error
    if wanted is not None and wanted != checkpoint_digest(folder):
        raise CheckpointError(
            f"{folder}: its ONNX files were made from other weights or settings; make them anew: "
            f"mma-mrnnet export {folder} {folder} --format onnx"
        )
    return settings


def has_contributions(model: Any) -> bool:
    """Return whether a stage-2 model can split its outputs into its frames' contributions."""
    return hasattr(model, "frame_contributions") and model.config.temporal_pooling != "padded"


@dataclass(frozen=True)
class CheckpointFacts:
    """Names, sizes and rates of a checkpoint, from its config and its processor.

    Fields have the names of `MMAConfig`, `MMAMRNNetConfig` and the processor. Those of the
    extractor are None or empty without an extractor, and those of the clip network in stage 1.
    """

    model_type: str
    image_size: int | None
    affect_names: list[str]
    action_units: list[int]
    prior_only_action_units: list[int]
    untrained_outputs: list[str]
    feature_names: list[str] | None
    input_names: list[str]
    label_names: list[str]
    num_frames: int
    length_policy: str
    sampling_fps: float
    temporal_pooling: str | None
    output_activation: str | None
    calibrated: bool
    relative_labels: bool
    simulated_labels: bool

    @classmethod
    def of(
        cls, model: "MMAModel | MMAMRNNetForIntensity", processor: "MMAMRNNetVideoProcessor"
    ) -> Self:
        """Collect the facts of a model of either stage and its processor."""
        config: Any = model.config
        # Not by class: a model loaded with the Hub's copy of the code has another one.
        is_stage_2 = config.model_type == "mma_mrnnet"
        extractor = config.mma_config if is_stage_2 else config
        units = [] if extractor is None else list(extractor.action_units)
        return cls(
            model_type=config.model_type,
            image_size=None if extractor is None else extractor.image_size,
            affect_names=[] if extractor is None else list(affect_names(units)),
            action_units=units,
            prior_only_action_units=list(config.prior_only_action_units),
            untrained_outputs=list(config.untrained_outputs or ()),
            feature_names=config.feature_names if is_stage_2 else None,
            input_names=list(config.input_names) if is_stage_2 else [],
            label_names=list(config.label_names) if is_stage_2 else [],
            num_frames=processor.num_frames,
            length_policy=processor.length_policy,
            sampling_fps=config.sampling_fps if is_stage_2 else processor.fps,
            temporal_pooling=config.temporal_pooling if is_stage_2 else None,
            output_activation=config.output_activation if is_stage_2 else None,
            calibrated=is_stage_2 and config.calibrated,
            relative_labels=is_stage_2 and config.relative_labels,
            simulated_labels=is_stage_2 and config.simulated_labels,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` gave; raises KeyError if a field is missing."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Return the fields in the types of JSON."""
        return asdict(self)

    @property
    def input_size(self) -> int:
        """Length of the vector that stage 2 reads of each frame."""
        return len(self.input_names)

    @property
    def is_stage_2(self) -> bool:
        """Whether the checkpoint gives intensities."""
        return self.model_type == "mma_mrnnet"

    def caveats(self) -> list[str]:
        """Return the sentences that must be shown with the intensities."""
        return caveats(
            simulated=self.simulated_labels,
            relative=self.relative_labels,
            calibrated=self.calibrated,
        )

    def affect_caveats(self) -> list[str]:
        """Return the sentences that must be shown with the affect."""
        notes = []
        prior_only = ", ".join(map(action_unit_name, self.prior_only_action_units))
        if prior_only:
            notes.append(f"{prior_only}: prior only, no label ever reached them")
        if self.untrained_outputs:
            notes.append(f"nothing taught {', '.join(self.untrained_outputs)}: arbitrary numbers")
        return notes
