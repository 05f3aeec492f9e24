"""From the bytes of a file to an upright RGB picture; runs only in the decoding process.

JPEG goes through libjpeg-turbo with scaled decoding, everything else (and every JPEG that is not
plain) through Pillow with an allow-list of formats. Nothing here trusts the bytes.
"""

import contextlib
import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import cv2
import numpy as np
import numpy.ma  # numpy itself loads it late
import pillow_heif
import simplejpeg
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from daemon.ingest.completeness import is_complete

FORMATS: Final = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000"),
    *("PPM", "ICO", "QOI"),
)
"""Formats Pillow may try: what cameras and archives hold. No EPS or PDF (programs in a file's
clothes), and none of the formats that no camera writes but whose readers had holes (PSD, FITS)."""

_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_EXIF_IFD: Final = 0x8769
_ORIENTATION: Final = 0x0112
_DATE_TAGS: Final = (
    (0x9003, 0x9011, 0x9291),  # DateTimeOriginal, OffsetTimeOriginal, SubsecTimeOriginal
    (0x9004, 0x9012, 0x9292),  # DateTimeDigitized and its fields
)
_EXIF_DATE = re.compile(r"(\d{4})[:\-](\d\d)[:\-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):([0-5]\d)")

# Everything is loaded now, as a confined process can load nothing later. One thread each: on a
# machine of many cores their stacks alone would take the memory that a decoding process may have.
ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.init()
pillow_heif.options.DECODE_THREADS = 1
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pillow_heif.register_heif_opener()


class UnusablePictureError(Exception):
    """The bytes are no usable picture; the text says why in plain words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded picture. `rgb`: uint8 (h, w, 3), upright, perhaps smaller than width x height."""

    rgb: NDArray[np.uint8]
    format: str
    width: int
    height: int
    exif_time: str | None


def decode(data: bytes, *, wanted: tuple[int, int], limit: int) -> Picture:
    """Decode a file's bytes to an upright RGB picture of at least `wanted` (height, width).

    Args:
        data: The whole file.
        wanted: Smallest useful size; a larger JPEG is decoded at a fraction of its size.
        limit: Most pixels a picture may have; more is refused from the header alone.

    Raises:
        UnusablePictureError: No picture, a broken one, or too large.
    """
    if data.startswith(b"\xff\xd8\xff"):
        picture = _decode_plain_jpeg(data, wanted, limit)
        if picture is not None:
            return picture
    return _decode_with_pillow(data, limit)


def _decode_plain_jpeg(data: bytes, wanted: tuple[int, int], limit: int) -> Picture | None:
    """Scaled decoding; None when the file needs the slower, more tolerant way."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height, limit)
    if colours in ("CMYK", "YCCK"):
        return None
    orientation, exif_time = _read_exif(data)
    turned = orientation >= 5
    least_height, least_width = wanted[::-1] if turned else wanted
    try:
        rgb = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_height=least_height, min_width=least_width
        )
    except ValueError:
        return None
    rgb = _upright(rgb, orientation)
    if turned:
        width, height = height, width
    return Picture(rgb=rgb, format="JPEG", width=width, height=height, exif_time=exif_time)


def _check_size(width: int, height: int, limit: int) -> None:
    if width <= 0 or height <= 0:
        raise UnusablePictureError("its header gives no valid size")
    if width * height > limit:
        raise UnusablePictureError(
            f"too large to be a camera's picture: {width} x {height} pixels"
            f" (limit {limit // 1_000_000} megapixels)"
        )


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (2, 4, 5, 7):
        rgb = rgb[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(rgb, turns))


def _read_exif(data: bytes) -> tuple[int, str | None]:
    """Orientation and capture time of a JPEG; a damaged EXIF block is no EXIF block."""
    if b"Exif\x00\x00" not in data[:131072]:
        return 1, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return _exif_facts(image)
    except Exception:  # an EXIF parser fed with garbage may raise anything
        return 1, None


def _exif_facts(image: Image.Image) -> tuple[int, str | None]:
    exif = image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    try:
        return orientation, _exif_time(exif)
    except Exception:  # as above; the orientation is still good
        return orientation, None


def _exif_time(exif: Image.Exif) -> str | None:
    """DateTimeOriginal, DateTimeDigitized or DateTime as ISO-8601, zone included where given."""
    inner = exif.get_ifd(_EXIF_IFD)
    sources = [(inner.get(a), inner.get(b), inner.get(c)) for a, b, c in _DATE_TAGS]
    sources.append((exif.get(0x0132), inner.get(0x9010), inner.get(0x9290)))
    for date, offset, fraction in sources:
        match = _EXIF_DATE.match(_text(date))
        if match is None or match[1] == "0000":
            continue
        text = "{}-{}-{}T{}:{}:{}".format(*match.groups())
        digits = re.match(r"\d+", _text(fraction))
        if digits is not None:
            text += "." + digits[0][:6].ljust(6, "0")
        zone = _OFFSET.match(_text(offset))
        valid = zone is not None and timedelta(hours=int(zone[2])) <= timedelta(hours=14)
        return text + zone[0] if zone is not None and valid else text
    return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip()
    return value.strip() if isinstance(value, str) else ""


def _decode_with_pillow(data: bytes, limit: int) -> Picture:
    formats: tuple[str, ...] = FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        formats = (*FORMATS, "HEIF")
    Image.MAX_IMAGE_PIXELS = limit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as image:
                picture = _load(image, limit)
            if not is_complete(data, picture.format):
                raise UnusablePictureError("the file ends early: its last part is missing")
            return picture
    except (UnusablePictureError, MemoryError, PermissionError, ImportError):
        raise  # the last two are no picture's fault: it is read from memory
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise UnusablePictureError("its header claims an enormous size (a bomb)") from exc
    except UnidentifiedImageError as exc:
        raise UnusablePictureError(_no_picture_reason(data)) from exc
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error) as exc:
        raise UnusablePictureError(f"the picture is broken: {_first_line(exc)}") from exc
    except Exception as exc:  # decoders fed with garbage raise whatever they like
        raise UnusablePictureError(
            f"the picture is broken: {type(exc).__name__} {_first_line(exc)}"
        ) from exc


def _load(image: Image.Image, limit: int) -> Picture:
    name = image.format or "unknown"
    _check_size(*image.size, limit)
    image.load()  # before the EXIF block: asking for that loads too, and would hide an error
    exif_time = None
    with contextlib.suppress(Exception):  # a broken EXIF block does not make a broken picture
        exif_time = _exif_facts(image)[1]
    upright: Image.Image | None = image
    try:
        upright = ImageOps.exif_transpose(image)  # after load: some plugins have turned it already
    except Exception:  # a broken EXIF block does not make a broken picture
        upright = image
    rgb_image = _to_rgb(upright or image)
    rgb = np.asarray(rgb_image, dtype=np.uint8)
    return Picture(
        rgb=np.ascontiguousarray(rgb),
        format=name,
        width=rgb.shape[1],
        height=rgb.shape[0],
        exif_time=exif_time,
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; 16-bit and float values are scaled, not clipped."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = 255.0 if image.mode == "F" and values.max(initial=0.0) <= 255.0 else 65535.0
        scaled = np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)
        return Image.fromarray(cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB))
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        if converted is not None:
            return converted
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _no_picture_reason(data: bytes) -> str:
    if not any(data[:65536]):
        return "no picture: it holds only zero bytes"
    if data.lstrip()[:1] == b"<":
        return "no picture: it is a web page or XML text"
    return "no picture: the content is of no known picture format"


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200]
