"""The parts of docs/benchmarks.md between two markers, which commands of their own rewrite."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Markers:
    """The lines before and after a section."""

    begin: str
    end: str


CLUSTERING: Final = Markers(
    "<!-- clustering and novelty: written by tests.benchmarks.issue3 -->",
    "<!-- end of clustering and novelty -->",
)
DEDUP: Final = Markers(
    "<!-- change-safe dedup: written by tests.benchmarks.issue4 -->",
    "<!-- end of change-safe dedup -->",
)
SECTIONS: Final = (CLUSTERING, DEDUP)
"""In the order of the page."""


def replace_section(page: str, section: str, markers: Markers) -> str:
    """The page with the section between the markers replaced, or added at its end.

    Raises:
        ValueError: One marker without the other, or the end before the beginning.
    """
    before, _, after = _parted(page, markers)
    text = f"{markers.begin}\n{section.strip()}\n{markers.end}\n"
    rest = f"\n{after.lstrip()}" if after.strip() else ""
    return f"{before.rstrip()}\n\n{text}{rest}" if before.strip() else text + rest


def keep_sections(old_page: str, new_page: str) -> str:
    """A newly written page with the sections of the old one, where that has some.

    Raises:
        ValueError: As `replace_section`.
    """
    for markers in SECTIONS:
        _, section, _ = _parted(old_page, markers)
        if section is not None:
            new_page = replace_section(new_page, section, markers)
    return new_page


def _parted(page: str, markers: Markers) -> tuple[str, str | None, str]:
    """What stands before, between (None without markers) and after the markers."""
    if markers.begin not in page and markers.end not in page:
        return page, None, ""
    before, begin, rest = page.partition(markers.begin)
    section, end, after = rest.partition(markers.end)
    if not begin or not end:
        raise ValueError(f"The page needs both markers, in order: {markers.begin} {markers.end}")
    return before, section, after
