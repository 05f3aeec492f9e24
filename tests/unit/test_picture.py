"""From the bytes of a file to an upright picture: every format, every way to be broken."""

import io
import random
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from daemon.ingest.picture import Picture, UnusablePictureError, decode
from tests.ingest_tools import encoded, scene

LIMIT = 120_000_000
CORNERS = {
    (0, 0): (200, 30, 30),
    (0, -1): (30, 180, 40),
    (-1, 0): (40, 50, 190),
    (-1, -1): (240,) * 3,
}
WIDTH, HEIGHT = 160, 96


def take(data: bytes, wanted: tuple[int, int] = (320, 320), limit: int = LIMIT) -> Picture:
    return decode(data, wanted=wanted, limit=limit)


def marked(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture with another colour in each quarter."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for (row, column), colour in CORNERS.items():
        rows = slice(0, height // 2) if row == 0 else slice(height // 2, height)
        columns = slice(0, width // 2) if column == 0 else slice(width // 2, width)
        pixels[rows, columns] = colour
    return Image.fromarray(pixels)


def assert_marked(rgb: NDArray[np.uint8], tolerance: float = 12, colour: bool = True) -> None:
    """The four corners are where `marked` put them."""
    height, width = rgb.shape[:2]
    for (row, column), expected in CORNERS.items():
        top = 0 if row == 0 else height - height // 4
        left = 0 if column == 0 else width - width // 4
        found = rgb[top : top + height // 4, left : left + width // 4].mean(axis=(0, 1))
        wanted = np.array(expected, dtype=np.float64)
        if not colour:
            wanted[:] = 0.299 * wanted[0] + 0.587 * wanted[1] + 0.114 * wanted[2]
        assert np.abs(found - wanted).max() <= tolerance, f"corner {row, column}: {found}"


def heic(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95)
    return buffer.getvalue()


def grey_values(dtype: Any, scale: float) -> NDArray[Any]:
    return (np.asarray(marked().convert("L")).astype(np.float64) * scale).astype(dtype)


def opencv(form: str, values: NDArray[Any]) -> bytes:
    done, data = cv2.imencode(form, values)
    assert done
    return bytes(data)


WHOLE: dict[str, tuple[bytes, str]] = {
    "jpeg": (encoded(marked(), quality=95), "JPEG"),
    "jpeg progressive": (encoded(marked(), quality=95, progressive=True), "JPEG"),
    "jpeg cmyk": (encoded(marked().convert("CMYK"), quality=95), "JPEG"),
    "png": (encoded(marked(), "PNG"), "PNG"),
    "png alpha": (encoded(marked().convert("RGBA"), "PNG"), "PNG"),
    "png palette": (encoded(marked().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), "PNG"),
    "png 16 bit colour": (
        opencv(".png", np.asarray(marked())[:, :, ::-1].astype(np.uint16) * 257),
        "PNG",
    ),
    "gif": (encoded(marked(), "GIF", save_all=True, append_images=[scene(1, 160, 96)]), "GIF"),
    "webp": (encoded(marked(), "WEBP", quality=95), "WEBP"),
    "webp lossless": (encoded(marked(), "WEBP", lossless=True), "WEBP"),
    "avif": (encoded(marked(), "AVIF", quality=95), "AVIF"),
    "heic": (heic(marked()), "HEIF"),
    "tiff": (encoded(marked(), "TIFF"), "TIFF"),
    "tiff deflate": (encoded(marked(), "TIFF", compression="tiff_adobe_deflate"), "TIFF"),
    "bmp": (encoded(marked(), "BMP"), "BMP"),
    "jpeg2000": (encoded(marked(), "JPEG2000"), "JPEG2000"),
    "ppm": (encoded(marked(), "PPM"), "PPM"),
}
GREY: dict[str, bytes] = {
    "jpeg grey": encoded(marked().convert("L"), quality=95),
    "png 16 bit": encoded(Image.fromarray(grey_values(np.uint16, 257)), "PNG"),
    "tiff 16 bit": encoded(Image.fromarray(grey_values(np.uint16, 257)), "TIFF"),
    "tiff float": encoded(Image.fromarray(grey_values(np.float32, 1)), "TIFF"),
    "png grey and alpha": encoded(marked().convert("LA"), "PNG"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_colour_formats(name: str) -> None:
    data, form = WHOLE[name]
    picture = take(data)
    assert (picture.format, picture.width, picture.height) == (form, WIDTH, HEIGHT)
    assert picture.rgb.shape == (HEIGHT, WIDTH, 3) and picture.rgb.dtype == np.uint8
    assert_marked(picture.rgb, 30 if name == "jpeg cmyk" else 12)


@pytest.mark.parametrize("name", GREY)
def test_grey_formats_are_scaled_and_not_clipped(name: str) -> None:
    picture = take(GREY[name])
    assert picture.rgb.shape == (HEIGHT, WIDTH, 3)
    assert_marked(picture.rgb, colour=False)


def test_one_bit_and_palette_with_transparency() -> None:
    assert take(encoded(marked().convert("1"), "PNG")).rgb.shape == (HEIGHT, WIDTH, 3)
    palette = marked().convert("P", palette=Image.Palette.ADAPTIVE)
    assert_marked(take(encoded(palette, "PNG", transparency=b"\x80" * 4)).rgb)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_odd_sizes(size: tuple[int, int], form: str) -> None:
    picture = take(encoded(scene(0, *size), form))
    assert (picture.width, picture.height) == size


def test_a_large_jpeg_is_decoded_at_a_fraction_but_told_in_full() -> None:
    picture = take(encoded(marked(1600, 960), quality=90), wanted=(100, 100))
    assert (picture.width, picture.height) == (1600, 960)
    assert picture.rgb.shape == (120, 200, 3)
    assert_marked(picture.rgb)


# --- orientation

TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # shown turned by 270 degrees
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def lying(orientation: int, form: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A file whose pixels lie as a camera held like that would write them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = marked(*size)
    stored = image.transpose(TO_STORED[orientation]) if orientation > 1 else image
    return encoded(stored, form, exif=exif, **({"quality": 95} if form != "PNG" else {}))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_shows_the_upright_picture(orientation: int, form: str) -> None:
    picture = take(lying(orientation, form))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert_marked(picture.rgb)
    if form == "JPEG":
        upright = take(encoded(marked(), quality=95)).rgb.astype(np.int16)
        assert np.abs(picture.rgb.astype(np.int16) - upright).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_scaled_decoding_together(orientation: int) -> None:
    picture = take(lying(orientation, "JPEG", (1600, 400)), wanted=(100, 400))
    assert (picture.width, picture.height) == (1600, 400)
    assert picture.rgb.shape == (100, 400, 3)
    assert_marked(picture.rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_with_orientation(orientation: int) -> None:
    image = marked()
    stored = image.transpose(TO_STORED[orientation]) if orientation > 1 else image
    picture = take(encoded(stored, "TIFF", tiffinfo={0x0112: orientation}))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert_marked(picture.rgb)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_senseless_orientation_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_marked(take(encoded(marked(), quality=95, exif=exif)).rgb)


# --- capture time


def with_exif(inner: dict[int, str], outer: dict[int, str] | None = None) -> bytes:
    exif = Image.Exif()
    for tag, value in (outer or {}).items():
        exif[tag] = value
    exif.get_ifd(0x8769).update(inner)
    return encoded(scene(), exif=exif)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ({0x9003: "2024:01:02 03:04:05"}, {}, "2024-01-02T03:04:05"),
        ({0x9003: "2024:01:02 03:04:05", 0x9011: "-05:00"}, {}, "2024-01-02T03:04:05-05:00"),
        ({0x9003: "2024:01:02 03:04:05", 0x9291: "25"}, {}, "2024-01-02T03:04:05.250000"),
        ({0x9004: "2024:01:02 03:04:05"}, {0x0132: "2025:01:01 00:00:00"}, "2024-01-02T03:04:05"),
        ({}, {0x0132: "2025:01:01 00:00:00"}, "2025-01-01T00:00:00"),
        (
            {0x9003: "0000:00:00 00:00:00", 0x9004: "2024:01:02 03:04:05"},
            {},
            "2024-01-02T03:04:05",
        ),
        ({0x9003: "2024:01:02 03:04:05", 0x9011: "+05:99"}, {}, "2024-01-02T03:04:05"),
        ({0x9003: "2024:01:02 03:04:05", 0x9011: "+99:00"}, {}, "2024-01-02T03:04:05"),
        ({0x9003: "2024:01:02 03:04:05", 0x9291: "abc"}, {}, "2024-01-02T03:04:05"),
        ({0x9003: "yesterday"}, {}, None),
        ({}, {}, None),
    ],
)
def test_the_time_of_the_exif_block(
    inner: dict[int, str], outer: dict[int, str], expected: str | None
) -> None:
    assert take(with_exif(inner, outer)).exif_time == expected


def test_the_exif_block_of_a_png_counts_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1  # Pillow writes no block for an outer part that is empty
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    assert take(encoded(scene(), "PNG", exif=exif)).exif_time == "2024-01-02T03:04:05"


@pytest.mark.parametrize("seed", range(20))
def test_garbage_in_place_of_an_exif_block(seed: int) -> None:
    plain = encoded(marked(), quality=95)
    generator = random.Random(seed)
    block = b"Exif\x00\x00" + generator.choice([b"", b"II*\x00\x08\x00\x00\x00", b"MM\x00*"])
    block += generator.randbytes(300)
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    picture = take(data)
    assert {picture.width, picture.height} == {WIDTH, HEIGHT}
    png = encoded(marked(), "PNG")
    chunk = b"eXIf" + block[6:]
    extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    picture = take(png[:33] + extra + png[33:])
    assert {picture.width, picture.height} == {WIDTH, HEIGHT}


# --- broken

CUT = {
    "jpeg": encoded(scene(1, 400, 300), quality=90),
    "jpeg progressive": encoded(scene(1, 400, 300), quality=90, progressive=True),
    "png": encoded(Image.effect_noise((200, 150), 80), "PNG"),
    "gif": encoded(Image.effect_noise((200, 150), 80).convert("P"), "GIF"),
    "webp": encoded(scene(1, 400, 300), "WEBP"),
    "avif": encoded(scene(1, 400, 300), "AVIF"),
    "heic": heic(scene(1, 400, 300)),
    "tiff": encoded(scene(1, 400, 300), "TIFF"),
    "tiff lzw": encoded(Image.effect_noise((200, 150), 80), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(scene(1, 400, 300), "BMP"),
    "ppm": encoded(scene(1, 400, 300), "PPM"),
}


@pytest.mark.parametrize("percent", range(0, 100, 10))
@pytest.mark.parametrize("name", CUT)
def test_a_file_cut_off_anywhere_is_no_picture(name: str, percent: int) -> None:
    whole = CUT[name]
    take(whole)
    with pytest.raises(UnusablePictureError) as caught:
        take(whole[: len(whole) * percent // 100])
    assert str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", [8, 20])
def test_an_error_is_not_hidden_by_the_look_for_an_exif_block(missing: int) -> None:
    with pytest.raises(UnusablePictureError):
        take(CUT["tiff lzw"][:-missing])


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\x00" * 100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def huge_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(scene()))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def huge_bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(scene(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def huge_gif() -> bytes:
    data = bytearray(encoded(scene().convert("P"), "GIF"))
    data[6:10] = struct.pack("<HH", 65535, 65535)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        huge_png(50_000, 50_000),
        huge_png(2**31 - 1, 2**31 - 1),
        huge_jpeg(65_500, 65_500),
        huge_bmp(60_000, 60_000),
        huge_gif(),
    ],
    ids=["png", "png of the largest size", "jpeg", "bmp", "gif"],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(UnusablePictureError, match=r"large|enormous"):
        take(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_the_limit_is_exact(form: str) -> None:
    data = encoded(scene(0, 64, 48), form)
    assert take(data, limit=64 * 48).width == 64
    with pytest.raises(UnusablePictureError, match=r"large|enormous"):
        take(data, limit=64 * 48 - 1)


def test_a_compressed_text_in_a_png_cannot_fill_the_memory() -> None:
    png = encoded(marked(), "PNG")
    body = b"zTXtkey\x00\x00" + zlib.compress(b"\x00" * 50_000_000, 9)
    extra = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    try:
        picture = take(png[:33] + extra + png[33:])
    except UnusablePictureError:
        return
    assert_marked(picture.rgb)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00" * 5000, "only zero bytes"),
        (b"", "no picture"),
        (b"<!DOCTYPE html><html><body>login</body></html>", "web page"),
        (b"\n  <?xml version='1.0'?><svg/>", "web page or XML"),
        (b"%PDF-1.7\n", "no known picture format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known picture format"),
        (b"PK\x03\x04" + b"x" * 100, "no known picture format"),
        (b"\x00\x00\x00\x18ftypmp42" + b"x" * 100, "no known picture format"),
        (b"\xff\xd8\xff", "no known picture format|broken"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 500, "no known picture format|broken"),
    ],
)
def test_what_is_no_picture_is_told_in_plain_words(data: bytes, reason: str) -> None:
    with pytest.raises(UnusablePictureError, match=reason):
        take(data)


@settings(max_examples=80, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff\xe0",
            b"\x89PNG\r\n\x1a\n",
            b"II*\x00",
            b"RIFF\x00\x00\x01\x00WEBPVP8 ",
            b"\x00\x00\x00\x18ftypheic",
            b"BM",
            b"GIF89a",
            b"8BPS",
            b"qoif",
        ]
    ),
)
def test_any_bytes_give_a_picture_or_a_reason(body: bytes, head: bytes) -> None:
    try:
        picture = take(head + body, limit=1_000_000)
    except UnusablePictureError as exc:
        assert str(exc)
    else:
        assert picture.rgb.ndim == 3


@pytest.mark.parametrize("name", CUT)
def test_flipped_bytes_give_a_picture_or_a_reason(name: str) -> None:
    generator = random.Random(7)
    for _ in range(25):
        data = bytearray(CUT[name])
        for _ in range(generator.randint(1, 20)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            picture = take(bytes(data), limit=4_000_000)
        except UnusablePictureError as exc:
            assert str(exc)
        else:
            assert picture.rgb.dtype == np.uint8
