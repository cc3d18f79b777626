"""An extractor's outputs for face crops and for changed copies of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Self

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.hub.checkpoints import load_extractor, pretrained_folder
from mma_mrnnet.metrics import count_constant_as_zero, pearson_scores
from mma_mrnnet.model.labels import action_unit_name
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import Steadiness

SHIPPED = "shipped"
"""Name of the checkpoint inside the package."""

MIRRORED, DARK, DISTURBED = "mirrored", "dark", "disturbed"

LANDMARK_UNITS = (1, 2, 4, 5, 7, 10, 12, 17, 20, 24, 25, 26)
"""The twelve units that a landmark model with blendshapes can answer."""

# A disturbed copy; our choice, below what one sees.
NOISE = 3.0  # standard deviation, out of 255
SHIFT = 0.01  # of the side: a pixel of 112
QUALITY = 75  # of JPEG


@dataclass
class Extractor:
    """A model to evaluate: its name in reports, the network, and its processor."""

    name: str
    network: MMAModel
    processor: MMAMRNNetVideoProcessor

    @classmethod
    def read(cls, name: str) -> Self:
        """Load an extractor (folder, repository or `shipped`), or raise CheckpointError."""
        return cls(name, *load_extractor(pretrained_folder() if name == SHIPPED else name))

    def read_affect(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 2 + 7 + A) outputs of N crops."""
        return extract_affect(list(crops), self.network, self.processor)

    def read_copies(self, crops: Sequence[np.ndarray], kinds: Sequence[str]) -> np.ndarray:
        """Return (N, len(kinds), A) action-unit outputs of changed copies of N crops."""
        outputs = [
            self.read_affect([change_crop(crop, kind) for crop in crops])[:, 9:] for kind in kinds
        ]
        return np.stack(outputs, 1)


def change_crop(crop: np.ndarray, kind: str) -> np.ndarray:
    """Return a mirrored, dark or disturbed copy of an (H, W, 3) uint8 crop.

    A dark copy has a third of the values. A disturbed one is shifted by `SHIFT`, gets noise and is
    compressed; it depends on the crop alone.
    """
    if kind == MIRRORED:
        return np.ascontiguousarray(crop[:, ::-1])
    if kind == DARK:
        return np.round(crop / 3).astype(np.uint8)
    draws = np.random.default_rng(int(crop.sum()))
    angle = draws.uniform(0, 2 * np.pi)
    x, y = SHIFT * crop.shape[1] * np.cos(angle), SHIFT * crop.shape[0] * np.sin(angle)
    move = np.array([[1, 0, x], [0, 1, y]], np.float32)
    moved = cv2.warpAffine(crop, move, crop.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    noisy = (moved + draws.normal(0, NOISE, crop.shape)).round().clip(0, 255).astype(np.uint8)
    stored = BytesIO()
    Image.fromarray(noisy).save(stored, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(stored))


def score_steadiness(
    units: Sequence[int], labels: Tensor, outputs: Tensor, copies: Tensor
) -> Steadiness:
    """Compare the outputs for N crops of one source with those for copies of them.

    `labels` are (N, A) intensities, NaN where unlabelled; `outputs` (N, A); `copies` (N, 3, A) of
    mirrored, dark and disturbed crops. Correlations do not depend on the scale of the outputs.
    """
    mirrored, dark, disturbed = copies.unbind(1)
    correlations = {
        "as_is": _correlate(outputs, labels),
        "mirrored": _correlate(mirrored, labels),
        "averaged": _correlate((outputs + mirrored) / 2, labels),
        "dark": _correlate(dark, labels),
    }
    jitter = (disturbed - outputs).double().square().mean(0).sqrt()
    deviation = outputs.double().std(0, correction=0)
    is_counted = torch.tensor([unit in LANDMARK_UNITS for unit in units])
    is_counted &= ~correlations["as_is"].isnan()
    names = [action_unit_name(unit) for unit in units]

    def by_unit(values: Tensor) -> dict[str, float | None]:
        return dict(zip(names, values.tolist(), strict=True))

    return Steadiness(
        units=[name for name, counted in zip(names, is_counted.tolist(), strict=True) if counted],
        mean_correlation={
            name: float(values[is_counted].mean()) for name, values in correlations.items()
        },
        mirror_agreement=by_unit(pearson_scores(mirrored, outputs)),
        dark_loss=by_unit(correlations["as_is"] - correlations["dark"]),
        jitter=by_unit(jitter),
        relative_jitter=by_unit(jitter / deviation),
    )


def _correlate(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return (A,) correlations; a constant output counts as 0, NaN means no varying label."""
    return count_constant_as_zero(pearson_scores(outputs, labels), labels)
