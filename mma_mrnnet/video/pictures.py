"""Read pictures as upright RGB; shared by photos, stored crops and training."""

import io
import logging
import os
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from mma_mrnnet.video.reading import MOST_PIXELS

logger = logging.getLogger(__name__)

_DEPTHS = (255, 1023, 4095, 16_383, 65_535)  # white at 8, 10, 12, 14 and 16 bits


class PictureError(ValueError):
    """A picture that cannot be read; the message starts with its name."""


def read_picture(
    source: str | os.PathLike[str] | BinaryIO | Image.Image,
    name: str | None = None,
    *,
    max_pixels: int = MOST_PIXELS,
) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB, upright by its EXIF data.

    Greys of more than 8 bits or floating point are scaled by their range, other colour profiles
    are converted to sRGB, and transparency becomes white. `name` is for messages. A picture above
    `max_pixels` is refused before it is decoded.

    Raises:
        FileNotFoundError: the file is missing.
        PictureError: it is no readable picture, or is too large.
    """
    name = name or (str(source) if isinstance(source, str | os.PathLike) else "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # we check our own limit
            image = source if isinstance(source, Image.Image) else Image.open(source)
            if image.width * image.height > max_pixels:
                raise PictureError(
                    f"{name}: a picture of {image.width} x {image.height} is larger than "
                    f"{max_pixels:,} pixels (max_pixels)"
                )
            try:
                return np.array(_to_rgb(ImageOps.exif_transpose(image), name))
            finally:
                if image is not source:
                    image.close()
    except (FileNotFoundError, PictureError):
        raise
    # Pillow's errors for damaged files depend on the format.
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        problem = type(error).__name__
        raise PictureError(f"{name}: not an image that can be read ({problem})") from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale_grey(np.asarray(image))).convert("RGB")
    image = _to_srgb(image, name)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _scale_grey(values: np.ndarray) -> np.ndarray:
    """Scale deep greys to (H, W) uint8 by the smallest of 8, 10, 12, 14, 16 bits that fits.

    Floats up to 1 are in [0, 1]; others are stretched from minimum to maximum (our choice).
    """
    whitest = (1, *_DEPTHS) if values.dtype.kind == "f" else _DEPTHS
    levels = np.nan_to_num(values.astype(np.float64))
    low, high = float(levels.min()), float(levels.max())
    if low >= 0 and high <= whitest[-1]:
        return (levels * (255 / min(w for w in whitest if high <= w))).round().astype(np.uint8)
    return ((levels - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a photo's own colour profile, such as Display P3, to sRGB."""
    content = image.info.get("icc_profile")
    if not content or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        srgb = ImageCms.createProfile("sRGB")
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, profile, srgb, outputMode=mode)
        return image if converted is None else converted
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.warning("%s: its colour profile is left out (%s)", name, error)
        return image
