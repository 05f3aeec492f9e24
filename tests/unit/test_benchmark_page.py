"""The command that measures, its tables and the section of the page that it rewrites."""

from pathlib import Path

import pytest

from tests.benchmarks.issue3 import main
from tests.benchmarks.page_section import CLUSTERING, DEDUP, keep_sections, replace_section
from tests.benchmarks.rows import Row, all_hold, table

PAGE = "# Benchmarks\n\nFigures.\n"
BEGIN, END = CLUSTERING.begin, CLUSTERING.end


def test_table_marks_what_does_not_hold_and_leaves_reports_unmarked() -> None:
    rows = [
        Row("speed", "5 s", "at most 4 s", False),
        Row("share", "a|b", "", None, "reported"),
        Row("memory", "1 GB", "at most 2 GB", True),
    ]
    lines = table(rows).splitlines()
    assert lines[2] == "| speed | 5 s | at most 4 s | **NO** |  |"
    assert lines[3] == r"| share | a\|b |  |  | reported |"
    assert lines[4].split("|")[4].strip() == "yes"
    assert all_hold(rows[1:])
    assert not all_hold(rows)


def test_section_is_added_then_replaced_and_the_rest_of_the_page_stays() -> None:
    once = replace_section(PAGE, "## New\n\nfirst", CLUSTERING)
    assert once == f"{PAGE}\n{BEGIN}\n## New\n\nfirst\n{END}\n"
    twice = replace_section(once + "\nAfter.\n", "second", CLUSTERING)
    assert twice == f"{PAGE}\n{BEGIN}\nsecond\n{END}\n\nAfter.\n"
    assert replace_section(twice, "second", CLUSTERING) == twice


def test_sections_survive_a_rewrite_of_the_page() -> None:
    old = replace_section(replace_section(PAGE, "late", DEDUP), "kept", CLUSTERING)
    first = f"# Other\n\n{BEGIN}\nkept\n{END}\n"
    second = f"{DEDUP.begin}\nlate\n{DEDUP.end}\n"
    assert keep_sections(old, "# Other\n") == f"{first}\n{second}"
    assert keep_sections(PAGE, "# Other\n") == "# Other\n"


@pytest.mark.parametrize("page", [BEGIN, END, f"{END}\n{BEGIN}"])
def test_half_a_section_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="both markers"):
        replace_section(page, "text", CLUSTERING)


def test_part_that_fails_is_a_row_that_does_not_hold(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    arguments = [str(tmp_path / "no-pictures"), "--only", "clustering_real", "--quick"]
    assert main([*arguments, "--work", str(tmp_path / "work"), "--out", str(page)]) == 1
    text = page.read_text()
    assert text.startswith(PAGE)
    assert "| failed | measured | **NO** | FileNotFoundError" in text
    assert "0 of 1 rows with a mark hold" in text
    assert "fastdup not run" in capfd.readouterr().out
