"""Files that are cut, altered, endless or no pictures at all, through the real decoding process."""

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from daemon.ingest.decode_process import DecodeChild
from daemon.settings import IngestSettings
from tests.faults.decode_corpus import bombs, crowds, foreign, samples

SIZE = (32, 32)
SEED = 7
COMMON = ("jpeg", "jpeg-progressive", "png", "webp", "tiff-raw", "bmp", "gif", "heic", "avif")
RARE_STEP = int(os.environ.get("STILLWATCH_CUT_STEP", "9"))
"""Percent between two cuts of the other formats; 1 takes half a minute."""
PADDING = 4
"""Bytes that a writer may put after the last thing that any reader asks for."""


class Decoder:
    """One decoding process for many files; it must live through all of them."""

    def __init__(self, folder: Path) -> None:
        self.child = DecodeChild(IngestSettings())
        self.child.confinement()
        self._path = folder / "file"
        self.first = self.child.pid

    def reason(self, data: bytes) -> str | None:
        """Why a file is refused; None for one that is taken."""
        self._path.write_bytes(data)
        with self._path.open("rb") as file:
            answer, payload = self.child.ask(file.fileno(), SIZE)
        assert "unreadable" not in answer, answer
        if "refused" in answer:
            reason = str(answer["refused"])
            assert reason and len(reason) < 400 and "\n" not in reason, reason
            assert len(str(answer["sha256"])) == 64
            return reason
        assert len(payload) > 3 * SIZE[0] * SIZE[1]
        return None

    @property
    def memory(self) -> int:
        """Bytes of the process in memory."""
        return int(psutil.Process(self.child.pid).memory_info().rss)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    made = Decoder(tmp_path_factory.mktemp("damaged"))
    try:
        yield made
        made.child.confinement()  # it still answers
    finally:
        made.child.close()


def test_a_file_cut_at_any_percent_is_refused_with_a_reason(decoder: Decoder) -> None:
    for name, whole in samples().items():
        for percent in range(0, 100, 1 if name in COMMON else RARE_STEP):
            cut = whole[: len(whole) * percent // 100]
            assert decoder.reason(cut), f"{name} is taken at {percent} %"


def test_a_file_that_lacks_its_last_bytes_is_refused(decoder: Decoder) -> None:
    for name, whole in samples().items():
        for missing in (PADDING + 1, 8, 12, 21):
            assert decoder.reason(whole[:-missing]), f"{name} is taken {missing} bytes short"


def test_what_follows_the_end_of_a_picture_does_not_matter(decoder: Decoder) -> None:
    for name, whole in samples().items():
        assert decoder.reason(whole) is None, name
        assert decoder.reason(whole + b"\x00\xff\xd9 more than belongs to it" * 9) is None, name


def test_altered_files_give_a_picture_or_a_reason(decoder: Decoder) -> None:
    generator = random.Random(SEED)
    refused = 0
    for whole in samples().values():
        for _ in range(12):
            data = bytearray(whole)
            for _ in range(generator.randint(1, 8)):
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            refused += decoder.reason(bytes(data)) is not None
    assert 50 < refused < 12 * len(samples())


def test_a_format_that_no_camera_writes_is_refused(decoder: Decoder) -> None:
    for name, data in foreign().items():
        assert "no picture" in str(decoder.reason(data)), name


def test_the_formats_refused_are_such_that_pillow_would_take() -> None:
    taken = set()
    for name, data in foreign().items():
        try:
            with Image.open(io.BytesIO(data)):
                taken.add(name)
        except Exception:  # broken on purpose
            continue
    assert {"psd", "eps", "fits", "sgi", "pcx", "tga", "dds", "icns", "blp"} <= taken


def test_bombs_cost_nothing(decoder: Decoder) -> None:
    own = psutil.Process()
    before, child_before = own.memory_info().rss, decoder.memory
    for name, data in bombs().items():
        reason = str(decoder.reason(data))
        known = ("large", "enormous", "no valid size", "no known picture", "broken")
        assert any(word in reason for word in known), (name, reason)
    for name, data in crowds().items():
        assert decoder.reason(data) is None, name  # its first page is a picture
    assert decoder.memory - child_before < 48 * 2**20
    assert own.memory_info().rss - before < 16 * 2**20
