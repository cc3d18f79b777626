"""Random changes of a face crop for training; they depend only on (seed, epoch, item).

torchvision has most of these transforms. We keep ours, because other arithmetic would change
the trained weights.
"""

import math
from collections.abc import Collection
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

AUGMENTATIONS = (
    "mirror",
    "geometry",
    "grey",
    "blur",
    "colour",
    "light",
    "occlusion",
    "noise",
    "compression",
)
"""Kinds of change, in the order in which they are made."""


def mixed_seed(*numbers: int) -> int:
    """Mix integers into one 63-bit seed; similar inputs give unrelated seeds (SplitMix64)."""
    state = 0
    for number in numbers:
        state = (state + 0x9E3779B97F4A7C15 + number) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def augment_crop(pixels: Tensor, kinds: Collection[str], generator: torch.Generator) -> Tensor:
    """Return a randomly changed copy of a crop, (3, S, S) in [-1, 1]; sizes are our choice.

    Labels are symmetric (a unit's intensity is the mean of both sides), so mirroring keeps
    them true. Crops are changed one by one, so that the result does not depend on the batch.
    """
    # Draw all random numbers at once, so that omitting a kind does not change the others.
    coins = dict(
        zip(
            AUGMENTATIONS, torch.rand(len(AUGMENTATIONS), generator=generator).tolist(), strict=True
        )
    )
    normal = torch.randn(12, generator=generator).tolist()
    place = torch.rand(5, generator=generator).tolist()
    if "mirror" in kinds and coins["mirror"] < 0.5:
        pixels = pixels.flip(-1)
    if "geometry" in kinds:
        # Standard deviations: 3 degrees, 4 %, 3 %; about the scatter of five detected landmarks.
        pixels = _move(
            pixels, angle=normal[0] * 0.052, zoom=1 + normal[1] * 0.04, shift=(normal[2], normal[3])
        )
    if "grey" in kinds and coins["grey"] < 0.2:
        pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    if "blur" in kinds and coins["blur"] < 0.25:
        pixels = _blur(
            pixels, factor=2 if coins["blur"] < 0.15 else 3 if coins["blur"] < 0.22 else 4
        )
    if "colour" in kinds:
        brightness = torch.tensor(
            [normal[5] * 0.15 + normal[6 + channel] * 0.05 for channel in range(3)]
        )
        pixels = pixels * math.exp(normal[4] * 0.2) + brightness.view(3, 1, 1)
        # Exposure: a face in a dim room has a third of the light.
        pixels = (pixels + 1) * math.exp(normal[11] * 0.35) - 1
    if "light" in kinds and coins["light"] < 0.3:
        pixels = _light_from_aside(pixels, slope=(normal[9] * 0.4, normal[10] * 0.25))
    if "occlusion" in kinds and coins["occlusion"] < 0.15:
        pixels = _cover(pixels, place)
    if "noise" in kinds and coins["noise"] < 0.3:
        strength = coins["noise"] / 3  # given the coin, even in [0, 0.1)
        pixels = torch.randn(pixels.shape, generator=generator).mul_(strength).add_(pixels)
    pixels = pixels.clamp(-1.0, 1.0)
    if "compression" in kinds and coins["compression"] < 0.25:
        pixels = _compress(
            pixels, quality=15 + round(coins["compression"] * 240)
        )  # given the coin, 15 to 75
    return pixels


def _move(pixels: Tensor, *, angle: float, zoom: float, shift: tuple[float, float]) -> Tensor:
    """Rotate by `angle` radians, scale, shift by 3 % of the side times `shift`; fill with black."""
    side = pixels.shape[-1]
    along = (torch.arange(side) * 2 + 1) / side - 1  # pixel centres in [-1, 1]
    x, y = along, along.unsqueeze(1)  # (S,), (S, 1)
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    grid = torch.stack(
        [x * cosine - (y * sine - shift[0] * 0.06), x * sine + (y * cosine + shift[1] * 0.06)],
        dim=-1,
    )  # (S, S, 2)
    # Black is -1, but the sampler pads with 0: shift values up, sample, shift them down.
    return (
        F.grid_sample((pixels + 1).unsqueeze(0), grid.unsqueeze(0), align_corners=False).squeeze(0)
        - 1
    )


def _blur(pixels: Tensor, factor: int) -> Tensor:
    side = pixels.shape[-1]
    small = F.interpolate(pixels.unsqueeze(0), size=max(side // factor, 8), mode="area")
    return F.interpolate(small, size=side, mode="bilinear", align_corners=False).squeeze(0)


def _light_from_aside(pixels: Tensor, *, slope: tuple[float, float]) -> Tensor:
    """Multiply brightness by exp(slope . position), with positions in [-1, 1]."""
    side = pixels.shape[-1]
    along = (torch.arange(side) * 2 + 1) / side - 1
    factor = torch.exp(slope[0] * along + slope[1] * along.unsqueeze(1))  # (S, S)
    return (pixels + 1) * factor - 1


def _cover(pixels: Tensor, place: list[float]) -> Tensor:
    """Cover a rectangle of 10 to 35 % of each side with one grey, like a hand or a microphone."""
    side = pixels.shape[-1]
    height, width = (round(side * (0.1 + 0.25 * share)) for share in place[:2])
    top, left = round((side - height) * place[2]), round((side - width) * place[3])
    pixels = pixels.clone()
    pixels[:, top : top + height, left : left + width] = 2 * place[4] - 1
    return pixels


def _compress(pixels: Tensor, quality: int) -> Tensor:
    levels = (pixels.permute(1, 2, 0) * 127.5 + 127.5).round().to(torch.uint8).numpy()
    stored = BytesIO()
    Image.fromarray(levels).save(stored, "JPEG", quality=quality)
    with Image.open(stored) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
