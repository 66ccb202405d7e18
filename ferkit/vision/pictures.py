"""Reading and writing pictures. An image is a BGR array (H, W, 3) uint8, as OpenCV reads it from cameras and videos.

image = read_image("party.jpg")
write_image("copy.png", image)
"""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from ferkit.errors import UserError
from ferkit.files import open_file, whole_file
from ferkit.processes import quiet

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
STDIN = ("-", "/dev/stdin")  # name the picture that comes through standard input
_HEIC = (".heic", ".heif", ".hif")  # of telephones: read by pillow-heif, if it is installed
_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PCD", "WMF"}  # of what Pillow knows
_ANIMATED = {"AVIF", "GIF", "PNG", "WEBP"}  # formats that may hold more than one picture
_LONGEST_SIDE = 6000  # of an image in memory, in pixels: at most 108 MB
_STRIP = 64  # rows of a smaller picture that are made at a time
_ORIENTATION = 0x0112  # EXIF's tag


def read_image(path: str | Path) -> np.ndarray:
    """The picture as a BGR image: turned upright by its EXIF data, transparent parts white, 16 bits scaled to 8.

    Pictures with a side of more than 6000 pixels are scaled down to that size. Of an animation it is the first picture.
    path: "-" or "/dev/stdin" for standard input. Raises `UserError` when the file is missing, damaged, cut short or not
    a picture. Pillow decodes the file, because it distinguishes these cases.
    """
    return read_scaled(path)[0]


def read_scaled(path: str | Path) -> tuple[np.ndarray, float]:
    """The image of `read_image`, and how many pixels of the picture one of its own is wide: 1 unless scaled down."""
    try:
        # Pillow warns about large pictures and odd metadata, and libtiff prints; too large pictures raise.
        with quiet(), _opened(path) as picture:
            whole = picture.size
            reduced = picture.draft(None, (_LONGEST_SIDE, _LONGEST_SIDE))  # a JPEG can be decoded at half its size
            picture.load()
            longest = max(whole if reduced else picture.size)
            picture.getexif()  # it reads the file
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: no such file") from error
    except UnidentifiedImageError as error:
        reason = "it is not a picture of a known format"
        if Path(path).suffix.lower() in _HEIC and not _reads_heic():
            reason = "its format HEIC needs a package: 'pip install pillow-heif'"
        elif str(path) not in STDIN and os.path.getsize(path) == 0:
            reason = "the file is empty"
        raise UserError(f"cannot read {path}: {reason}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"cannot read {path}: more pixels than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}") from error
    except Exception as error:  # decoders raise errors of many types for damaged data
        reason = getattr(error, "strerror", None) or f"the picture is damaged or cut short ({error})"
        raise UserError(f"cannot read {path}: {reason}") from error
    decoded = ImageOps.exif_transpose(_decoded(picture))
    del picture  # and its memory
    return cv2.cvtColor(np.asarray(decoded), cv2.COLOR_RGB2BGR), longest / max(decoded.size)


def _decoded(picture: Image.Image) -> Image.Image:
    """The picture as RGB, with the orientation of its EXIF data, and no side longer than _LONGEST_SIDE.

    A larger picture is scaled down strip by strip: Pillow itself keeps four bytes for each pixel of the file, and a
    copy of all of them would double that.
    """
    scale = max(picture.size) / _LONGEST_SIDE
    if scale <= 1:
        rgb = _flattened(picture)
    else:
        width, height = (max(1, round(side / scale)) for side in picture.size)
        rgb = Image.new("RGB", (width, height))
        rows = picture.height / height  # of the file, for each row of the result
        for top in range(0, height, _STRIP):
            bottom = min(height, top + _STRIP)
            first = max(0, int((top - 2) * rows))  # two more rows on both sides, for the filter
            strip = _flattened(picture.crop((0, first, picture.width, min(picture.height, int((bottom + 3) * rows)))))
            box = (0, top * rows - first, picture.width, min(bottom * rows - first, strip.height))
            rgb.paste(strip.resize((width, bottom - top), Image.Resampling.BILINEAR, box), (0, top))
    orientation = picture.getexif().get(_ORIENTATION)
    rgb.info = {}  # Pillow would write other EXIF data anew to turn the picture, and cannot if they are damaged
    if orientation is not None:
        rgb.getexif()[_ORIENTATION] = orientation
    return rgb


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
            picture.load()
            picture.getexif()
    except (TooManyPixels, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"it is none of {', '.join(formats)}") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"it has more than {most_pixels:,} pixels") from error
    except Exception as error:  # decoders raise errors of many types for damaged data
        raise UserError("it is damaged or cut short") from error
    return cv2.cvtColor(np.asarray(ImageOps.exif_transpose(_decoded(picture))), cv2.COLOR_RGB2BGR)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The file, or all of the standard input, in which Pillow could not go back."""
    _reads_heic()
    with io.BytesIO(sys.stdin.buffer.read()) if str(path) in STDIN else open_file(path) as file:
        try:
            picture: Image.Image = Image.open(file)
        except Image.DecompressionBombError as error:
            file.seek(0)
            try:
                picture = JpegImagePlugin.JpegImageFile(file)  # whose `draft` keeps even large ones small in memory
            except SyntaxError:  # it is no JPEG
                raise error from None
        with picture:
            yield picture


@functools.cache
def _reads_heic() -> bool:
    """Whether Pillow can read HEIC. Makes it do so if pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """The suffixes of the pictures that can be read, and of HEIC, so that its missing package is reported."""
    known = Image.registered_extensions().items()
    readable = {suffix for suffix, format in known if format in Image.OPEN and format not in _NO_PICTURES}
    return frozenset({*readable, *_HEIC})


def is_hidden(path: str | Path) -> bool:
    """Whether a path below some folder is that of a hidden file, such as macOS makes, or leads into a hidden folder."""
    return any(part.startswith(".") for part in Path(path).parts)


def is_animated(path: str | Path) -> bool:
    """Whether the file holds several pictures that follow one another."""
    try:
        with open_file(path) as file, Image.open(file) as picture:
            return picture.format in _ANIMATED and getattr(picture, "is_animated", False)
    except Exception:  # `read_image` reports it
        return False


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
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _flattened(picture: Image.Image) -> Image.Image:
    """The picture as RGB without transparency."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float32) / 257  # 65535 becomes 255
        return _grey_picture(values)
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture), posinf=0, neginf=0)
        greatest = next((greatest for greatest in (1, 255) if values.max(initial=0) <= greatest), 65535)
        return _grey_picture(values * (255 / greatest))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _grey_picture(values: np.ndarray) -> Image.Image:
    """An RGB picture of grey values (H, W), of which 255 is white."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


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
