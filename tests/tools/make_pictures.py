"""Makes docs/pictures from a real run: `python -m tests.tools.make_pictures FOLDER`.

FOLDER holds the pictures of fixedcam_road (intel-iot-devkit/sample-videos, CC BY 4.0); it is
copied and left alone. The commands run in a pseudo-terminal, so the screen shows what an owner
sees. Only the temporary folder's name is replaced, by one of the same length.
"""

import argparse
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SHOWN_ROOT = "/srv/pictures"
WIDTH = 120
NOISE = "XNNPACK"
"""LiteRT's own greeting; it says nothing about the run."""


def in_terminal(arguments: Sequence[str], folder: Path) -> str:
    """What a command prints on a terminal, stdout and stderr as they come."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(WIDTH),
        "TERM": "xterm-256color",
        "STILLWATCH_STATE": str(folder / "state"),
    }
    command = [sys.executable, "-m", "cli.main", *arguments]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    if child.wait() != 0:
        raise SystemExit(f"{arguments} ended with {child.returncode}")
    return b"".join(parts).decode()


def settled_lines(printed: str) -> list[str]:
    """The lines that stay on the screen: what a progress bar wrote over is gone."""
    lines = [line.split("\r")[-1] for line in printed.replace("\r\n", "\n").split("\n")]
    text = "\n".join(line for line in lines if NOISE not in line)
    return re.sub(r"\x1b\[(\?25[lh]|[0-9]*[AK])", "", text).rstrip().split("\n")


def make_screen(folder: Path) -> str:
    """An SVG: a first run, the reason of one frame, the clusters, and the way back."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    for words, most in (
        ("run road --once --file", 40),
        ("why f70", 9),
        ("clusters", 9),
        ("undo r2 --yes", 4),
    ):
        console.print(Text(f"$ stillwatch {words}", style="bold"))
        for line in settled_lines(in_terminal(words.split(), folder))[:most]:
            console.print(Text.from_ansi(line.replace(str(folder), SHOWN_ROOT)), soft_wrap=True)
        console.print()
    # Rich's own template fetches a font from the network; the viewer's will do.
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("Fira Code", "DejaVu Sans Mono")
    return console.export_svg(title="stillwatch", code_format=template, unique_id="stillwatch")


def frame_facts(folder: Path, frame: str) -> dict[str, Any]:
    """`why FRAME --json`."""
    command = [sys.executable, "-m", "cli.main", "--state", str(folder / "state"), "--json"]
    done = subprocess.run([*command, "why", frame], capture_output=True, check=True, cwd=folder)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def first_change(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A keeper, its last duplicate, and the next frame, which was kept because it differs."""
    command = [sys.executable, "-m", "cli.main", "--state", str(folder / "state"), "--json"]
    done = subprocess.run([*command, "frames"], capture_output=True, check=True, cwd=folder)
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    for before, after in pairwise(frames):
        changed = "changed since" in (after["reason"] or "")
        if before["state"] == "near_duplicate" and changed and after["change_score"] > 4:
            keeper = frame_facts(folder, before["duplicate_of"])
            return keeper, before, after
    raise SystemExit("no frame shows a change")


def make_strip(source: Path, folder: Path) -> Image.Image:
    """Keeper, duplicate and change side by side; the tile that decided is marked."""
    shown = first_change(folder)
    strip = Image.new("RGB", (3 * 330 - 10, 206), "white")
    captions = ("keeper", "near-duplicate, score {:.2f}", "kept: changed, score {:.2f}")
    for number, (facts, caption) in enumerate(zip(shown, captions, strict=True)):
        picture = Image.open(source / Path(facts["original_path"]).name).convert("RGB")
        picture = picture.resize((320, 180))
        draw = ImageDraw.Draw(picture)
        place = re.search(r"at x (\d+) %, y (\d+) %", facts["reason"] or "")
        if number == 2 and place:
            x, y = 3.2 * int(place[1]), 1.8 * int(place[2])
            draw.rectangle((x - 12, y - 12, x + 12, y + 12), outline=(255, 40, 40), width=2)
        strip.paste(picture, (330 * number, 0))
        words = f"{facts['id']}: " + caption.format(facts["change_score"] or 0)
        ImageDraw.Draw(strip).text((330 * number + 4, 186), words, fill="black", font_size=14)
    return strip


def main() -> None:
    """Run on a copy and write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    source = parser.parse_args().folder
    temporary = tempfile.mkdtemp(prefix="", dir="/tmp")
    try:
        folder = Path(temporary)
        if len(temporary) != len(SHOWN_ROOT):
            raise SystemExit("the name shown must be as long as the real one, or columns shift")
        shutil.copytree(source, folder / "road", copy_function=shutil.copyfile)
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / "screen.svg").write_text(make_screen(folder), encoding="utf-8")
        make_strip(source, folder).save(PICTURES / "change.jpg", quality=85, optimize=True)
    finally:
        shutil.rmtree(temporary)


if __name__ == "__main__":
    main()
