"""One row of a benchmark table: what was measured, what it must be, whether that holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A measured figure. `holds` is None where there is no mark, only a report."""

    name: str
    measured: str
    must: str
    holds: bool | None
    note: str = ""

    @property
    def verdict(self) -> str:
        """For a table: yes, NO in bold, or nothing where there is no mark."""
        return "" if self.holds is None else ("yes" if self.holds else "**NO**")


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, readable on a terminal too."""
    cells = [(row.name, row.measured, row.must, row.verdict, row.note) for row in rows]
    return markdown(("check", "measured", "must", "holds", "note"), cells)


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table. A pipe inside a cell is escaped: it would end the cell."""
    marks = ["---"] * len(head)
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(head), marks, *cells])


def all_hold(rows: Iterable[Row]) -> bool:
    """Whether no row with a mark misses it."""
    return all(row.holds is not False for row in rows)
