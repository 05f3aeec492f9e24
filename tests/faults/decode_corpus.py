"""Pictures in every format and odd mode that the decoder takes, and files that it must not take.

Everything is made here by Pillow, pillow-heif and OpenCV, or written by hand; nothing is fetched.
"""

import functools
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pillow_heif
from PIL import Image

SIZE = (96, 64)
"""Width and height in pixels: small, so that ten thousand decodes take seconds."""


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Soft colours with noise on them, another for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    soft = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noisy = soft + rng.integers(-12, 13, soft.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def written(extension: str, pixels: Any, *options: int) -> bytes:
    """By OpenCV."""
    done, data = cv2.imencode(extension, pixels, list(options))
    assert done
    return bytes(data)


def frames(count: int) -> list[Image.Image]:
    return [picture(seed) for seed in range(count)]


def heic(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=60)
    return buffer.getvalue()


def png(width: int, height: int, body: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """By hand: 8-bit RGB, `body` as its compressed rows, further chunks before it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", body), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def psd(width: int, height: int, body: bytes) -> bytes:
    """By hand: RGB, flattened, no layer, uncompressed planes."""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, height, width, 8, 3)
    return header + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + body


def jpegs() -> dict[str, bytes]:
    image = picture()
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2026:03:04 05:06:07"
    return {
        "jpeg": saved(image, "JPEG", quality=90),
        "jpeg-progressive": saved(image, "JPEG", progressive=True, quality=70),
        "jpeg-cmyk": saved(image.convert("CMYK"), "JPEG"),
        "jpeg-grey": saved(image.convert("L"), "JPEG"),
        "jpeg-422": saved(image, "JPEG", subsampling="4:2:2", optimize=True),
        "jpeg-restarts": saved(image, "JPEG", restart_marker_rows=1),
        "jpeg-exif": saved(image, "JPEG", exif=exif, comment=b"x" * 300),
        "jpeg-cv2": written(".jpg", np.asarray(image), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    }


def pngs() -> dict[str, bytes]:
    image = picture()
    grey16 = np.asarray(image.convert("L")).astype(np.uint16) * 257
    rgb16 = np.asarray(image).astype(np.uint16) * 257
    return {
        "png": saved(image, "PNG"),
        "png-palette": saved(image.quantize(17), "PNG", transparency=3),
        "png-16": written(".png", grey16),
        "png-48": written(".png", rgb16),
        "png-1": saved(image.convert("1"), "PNG"),
        "png-alpha": saved(image.convert("RGBA"), "PNG"),
        "png-animated": saved(image, "PNG", save_all=True, append_images=frames(3)),
    }


def tiffs() -> dict[str, bytes]:
    image = picture()
    ways = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    found = {f"tiff-{way}": saved(image, "TIFF", compression=way) for way in ways}
    return found | {
        "tiff-fax": saved(image.convert("1"), "TIFF", compression="group4"),
        "tiff-16": saved(Image.fromarray(np.asarray(image.convert("I;16"))), "TIFF"),
        "tiff-float": saved(image.convert("F"), "TIFF"),
        "tiff-cmyk": saved(image.convert("CMYK"), "TIFF"),
        "tiff-pages": saved(image, "TIFF", save_all=True, append_images=frames(4)),
        "tiff-cv2": written(".tiff", np.asarray(image)),
    }


def others() -> dict[str, bytes]:
    image = picture()
    return {
        "webp": saved(image, "WEBP"),
        "webp-lossless": saved(image.convert("RGBA"), "WEBP", lossless=True),
        "webp-animated": saved(image, "WEBP", save_all=True, append_images=frames(3)),
        "bmp": saved(image, "BMP"),
        "bmp-palette": saved(image.quantize(16), "BMP"),
        "bmp-1": saved(image.convert("1"), "BMP"),
        "gif": saved(image.quantize(64), "GIF"),
        "gif-animated": saved(image, "GIF", save_all=True, append_images=frames(3)),
        "heic": heic(image),
        "avif": saved(image, "AVIF"),
        "jpeg2000": saved(image, "JPEG2000"),
        "jpeg2000-stream": saved(image, "JPEG2000", no_jp2=True),
        "ppm": saved(image, "PPM"),
        "pgm-16": written(".pgm", np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "ico": saved(image, "ICO"),
        "qoi": saved(image, "QOI"),
    }


@functools.cache
def samples() -> Mapping[str, bytes]:
    """Name -> bytes of pictures that the decoder must take."""
    return jpegs() | pngs() | tiffs() | others()


def fits() -> bytes:
    cards: tuple[str, ...] = ("SIMPLE  =                    T", "BITPIX  =                    8")
    cards += ("NAXIS   =                    2", "NAXIS1  =                   96")
    cards += ("NAXIS2  =                   64", "END")
    return "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(5760)


@functools.cache
def foreign() -> Mapping[str, bytes]:
    """Name -> bytes of files in formats that must be refused, whatever decoder could read them."""
    image = picture()
    forms = ("EPS", "SGI", "PCX", "TGA", "DDS", "MSP", "SPIDER", "PDF", "ICNS", "BLP", "XBM")
    modes = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}
    found = {
        form.lower(): saved(image.convert(modes[form]) if form in modes else image, form)
        for form in forms
    }
    planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).tobytes()
    return found | {
        "psd": psd(*SIZE, planes),
        "eps-program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{ } loop\n",
        "eps-binary": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, 40) + bytes(60),
        "fits": fits(),
        "fits-gzip": b"SIMPLE  = T ZCMPTYPE= 'GZIP_1'".ljust(2880) + zlib.compress(bytes(10**6)),
        "sgi-header": struct.pack(">HBBHHHH", 474, 1, 1, 3, 65535, 65535, 4) + bytes(500),
        "psd-large": b"8BPB" + bytes(60),
        "sun": struct.pack(">8I", 0x59A66A95, 96, 64, 24, 18432, 1, 0, 0) + bytes(18432),
        "fli": struct.pack("<IHHHH", 200, 0xAF12, 2, 96, 64) + bytes(180),
        "wmf": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(60),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "mp4": b"\x00\x00\x00\x18ftypmp42" + bytes(60),
        "zip": b"PK\x03\x04" + bytes(60),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(60),
    }


def _resized(data: bytes, layout: str, place: int, *values: int) -> bytes:
    """The file with the numbers of its header at `place` replaced."""
    patched = bytearray(data)
    struct.pack_into(layout, patched, place, *values)
    return bytes(patched)


def _tiff_claiming(width: int, height: int) -> bytes:
    """By hand: little-endian, 8-bit RGB in one strip."""
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 134),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, 30),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\x00" + struct.pack("<IH", 8, len(entries)) + directory + bytes(200)


def _box_claiming(data: bytes, width: int, height: int) -> bytes:
    """An ISO file (HEIC, AVIF) whose `ispe` boxes give another size."""
    patched = bytearray(data)
    place = patched.find(b"ispe")
    while place >= 0:
        struct.pack_into(">II", patched, place + 8, width, height)
        place = patched.find(b"ispe", place + 4)
    return bytes(patched)


@functools.cache
def bombs() -> Mapping[str, bytes]:
    """Name -> small files that promise 900 megapixels and more, or thousands of pages."""
    kept = samples()
    jpeg = bytearray(kept["jpeg"])
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65_500, 65_500)
    progressive = bytearray(kept["jpeg-progressive"])
    struct.pack_into(">HH", progressive, progressive.index(b"\xff\xc2") + 5, 65_500, 65_500)
    rows = zlib.compress(bytes(3_000_000), 9)
    stream = bytearray(kept["jpeg2000-stream"])
    struct.pack_into(">II", stream, stream.index(b"\xff\x51") + 6, 60_000, 60_000)
    return {
        "jpeg": bytes(jpeg),
        "jpeg-progressive": bytes(progressive),
        "png": png(30_000, 30_000, rows),
        "png-largest": png(2**31 - 1, 2**31 - 1, rows),
        "tiff": _tiff_claiming(60_000, 60_000),
        "tiff-largest": _tiff_claiming(2**32 - 1, 2**32 - 1),
        "bmp": _resized(kept["bmp"], "<ii", 18, 60_000, 60_000),
        "bmp-upside-down": _resized(kept["bmp"], "<ii", 18, 60_000, -60_000),
        "gif": _resized(kept["gif"], "<HH", 6, 65_535, 65_535),
        "webp": _resized(kept["webp-animated"], "<HBHB", 24, 0xFFFF, 0, 0xFFFF, 0),
        "heic": _box_claiming(kept["heic"], 60_000, 60_000),
        "avif": _box_claiming(kept["avif"], 60_000, 60_000),
        "jpeg2000": bytes(stream),
        "ppm": b"P6\n60000 60000\n255\n" + bytes(1000),
        "qoi": _resized(kept["qoi"], ">II", 4, 60_000, 60_000),
        "psd": psd(30_000, 30_000, bytes(1000)),
        "ico": _ico_holding(png(30_000, 30_000, rows)),
    }


def _ico_holding(data: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(data), 22) + data


def _many_gif(pages: int) -> bytes:
    """One small frame, repeated."""
    one = saved(picture(size=(16, 16)).quantize(8), "GIF")
    start = one.index(b",", 13 + 3 * 8)
    frame = b"!\xf9\x04\x00\x01\x00\x00\x00" + one[start:-1]
    return one[:start] + frame * pages + b";"


def _many_webp(pages: int) -> bytes:
    two = saved(picture(1, (16, 16)), "WEBP", save_all=True, append_images=[picture(2, (16, 16))])
    start = two.index(b"ANMF")
    size = 8 + struct.unpack_from("<I", two, start + 4)[0]
    body = two[8:start] + two[start : start + size] * pages
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _many_tiff(pages: int) -> bytes:
    """Directories in a chain, all over the same 8 x 8 grey pixels."""
    tags = ((256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8))
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in (*tags, (279, 64)))
    size = 2 + len(entries) + 4
    parts = [b"II*\x00" + struct.pack("<I", 72) + bytes(range(64))]
    for page in range(pages):
        following = 72 + size * (page + 1) if page < pages - 1 else 0
        parts.append(struct.pack("<H", len(entries) // 12) + entries + struct.pack("<I", following))
    return b"".join(parts)


def crowds(pages: int = 10_000) -> dict[str, bytes]:
    """Name -> files of very many pages, of which only the first may cost anything."""
    return {"gif": _many_gif(pages), "webp": _many_webp(pages), "tiff": _many_tiff(pages)}
