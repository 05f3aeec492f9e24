"""The part of docs/benchmarks.md between two markers, which a command of its own rewrites."""

from typing import Final

BEGIN: Final = "<!-- clustering and novelty: written by tests.benchmarks.issue3 -->"
END: Final = "<!-- end of clustering and novelty -->"


def replace_section(page: str, section: str) -> str:
    """The page with the section between the markers replaced, or added at its end.

    Raises:
        ValueError: One marker without the other, or the end before the beginning.
    """
    before, _, after = _parted(page)
    text = f"{BEGIN}\n{section.strip()}\n{END}\n"
    return f"{before.rstrip()}\n\n{text}{after.lstrip()}" if before.strip() else text + after


def keep_section(old_page: str, new_page: str) -> str:
    """A newly written page with the section of the old one, where that has one.

    Raises:
        ValueError: As `replace_section`.
    """
    _, section, _ = _parted(old_page)
    return new_page if section is None else replace_section(new_page, section)


def _parted(page: str) -> tuple[str, str | None, str]:
    """What stands before, between (None without markers) and after the markers."""
    if BEGIN not in page and END not in page:
        return page, None, ""
    before, begin, rest = page.partition(BEGIN)
    section, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page needs both markers, in order: {BEGIN} {END}")
    return before, section, after
