"""Reading and writing pictures. An image is a BGR array (H, W, 3) uint8, as OpenCV reads it from cameras and videos.

image = read_image("party.jpg")
write_image("copy.png", image)
"""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.processes import quiet

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_LONGEST_SIDE = 6000  # of an image in memory, in pixels: at most 108 MB


def read_image(path: str | Path) -> np.ndarray:
    """The picture as a BGR image: turned upright by its EXIF data, transparent parts white, 16 bits scaled to 8.

    Pictures with a side of more than 6000 pixels are scaled down to that size. Raises `UserError` when the file is
    missing, damaged, cut short or not a picture. Pillow decodes the file, because it distinguishes these cases and
    prints nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large pictures and odd metadata; too large pictures raise
            with Image.open(path) as picture:
                picture.draft(None, (_LONGEST_SIDE, _LONGEST_SIDE))  # a JPEG can be decoded at half its size
                rgb = np.asarray(_flattened(ImageOps.exif_transpose(picture)))
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"cannot read {path}: it is a folder") from error
    except UnidentifiedImageError as error:
        reason = "it is not a picture of a known format" if os.path.getsize(path) else "the file is empty"
        raise UserError(f"cannot read {path}: {reason}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"cannot read {path}: more pixels than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}") from error
    except Exception as error:  # decoders raise errors of many types for damaged data
        reason = getattr(error, "strerror", None) or f"the picture is damaged or cut short ({error})"
        raise UserError(f"cannot read {path}: {reason}") from error
    return shrunk(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _LONGEST_SIDE)


class TooManyPixels(UserError):
    """A picture has more pixels than are accepted."""


def decode_image(content: bytes, formats: Sequence[str], most_pixels: int) -> np.ndarray:
    """The picture in a file's content as a BGR image, treated as `read_image` treats it.

    formats: Pillow's names of the formats that are accepted. most_pixels: width times height, which is known before
    the picture is decoded. Raises TooManyPixels, and UserError when it is damaged, cut short or of another format.
    """
    try:
        with quiet(), Image.open(io.BytesIO(content), formats=tuple(formats)) as picture:
            if picture.width * picture.height > most_pixels:
                raise TooManyPixels(f"it has {picture.width:,} × {picture.height:,} pixels, more than {most_pixels:,}")
            picture.draft(None, (_LONGEST_SIDE, _LONGEST_SIDE))
            rgb = np.asarray(_flattened(ImageOps.exif_transpose(picture)))
    except (TooManyPixels, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"it is none of {', '.join(formats)}") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"it has more than {most_pixels:,} pixels") from error
    except Exception as error:  # decoders raise errors of many types for damaged data
        raise UserError("it is damaged or cut short") from error
    return shrunk(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _LONGEST_SIDE)


def as_bgr(image: np.ndarray) -> np.ndarray:
    """Converts the usual arrays of a picture to a BGR image (H, W, 3) uint8.

    The array may be grey (H, W) or (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4). Transparent parts become white. Values
    may be uint8, uint16 (65535 is white) or floats from 0 to 1. Raises ValueError for anything else.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the image must be a NumPy array, not {type(image).__name__}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"the image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {image.shape}")
    values = _as_uint8(image)
    if channels == 1:
        return cv2.cvtColor(values.reshape(image.shape[:2]), cv2.COLOR_GRAY2BGR)
    if channels == 4:
        alpha = values[..., 3:].astype(np.float32) / 255
        return np.rint(values[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return values


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return np.rint(image / 257).astype(np.uint8)
    if image.dtype.kind == "f":
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ValueError("an image of floats must have values from 0 to 1")
        return np.rint(image * 255).astype(np.uint8)
    raise ValueError(f"the image must be of uint8, uint16 or floats from 0 to 1, not of {image.dtype}")


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes the image in the format that the path's suffix names; never leaves an incomplete file.

    Raises UserError for an unknown suffix, and when the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise UserError(f"cannot write {path}: its suffix '{suffix}' is none of {' '.join(WRITTEN_SUFFIXES)}")
    encoded = cv2.imencode(suffix, image)[1]
    try:
        with whole_file(path) as temporary:
            encoded.tofile(temporary)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _flattened(picture: Image.Image) -> Image.Image:
    """The picture as RGB without transparency."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float32) / 257  # 65535 becomes 255
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """The image, scaled down if a side is longer than `longest` pixels."""
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def grey(image: np.ndarray) -> np.ndarray:
    """The image in grey: (H, W) uint8."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
