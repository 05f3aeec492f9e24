"""Copies in an archive: one picture re-encoded, resized, cropped, brightened, overlaid, turned.

For cameras of the kind `archive` only. An overlay is a change like any other, so on a fixed camera
this rule would delete events.

A picture is removed only against one kept picture that it passes against itself, so there are no
chains: pictures are taken in the order in which they are preferred as keepers, and each is compared
with the keepers found so far.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from daemon.dedup.copy_rule import (
    LIMITS,
    ArchivePictures,
    BoolArray,
    CopyRule,
    IntArray,
    Pairs,
    RowIndex,
)

BLOCK: Final = 512
"""Pictures compared at once."""
LARGEST_EXCHANGE: Final = 50
"""Pictures of a group whose keeper may be exchanged: each is compared with the new one."""
EXCHANGES_TRIED: Final = 8
"""For one picture."""
SAME_ASPECT: Final = 0.02
"""Relative difference of width / height up to which a picture was resized, not cropped."""

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Copy:
    """A picture that is a copy of a kept one. `reason`: in words, with the numbers."""

    frame_id: int
    keeper_id: int
    reason: str


def find_copies(
    pictures: ArchivePictures,
    *,
    stay: BoolArray | None = None,
    apart: frozenset[frozenset[int]] = frozenset(),
    progress: Progress = lambda _done: None,
) -> list[Copy]:
    """Which pictures are copies of one that is kept.

    Args:
        pictures: In the order of preference; the same order gives the same copies.
        stay: (n,) rows that are kept whatever they resemble; others may be copies of them.
        apart: Pairs of frame ids that may not come into one group.
        progress: Told how many pictures were looked at.

    Returns:
        The copies, in the order of the pictures.
    """
    count = len(pictures.ids)
    stays = np.zeros(count, dtype=bool) if stay is None else stay
    grouping = _Grouping(pictures, stays, apart)
    for start in range(0, count, BLOCK):
        grouping.assign(np.arange(start, min(start + BLOCK, count)))
        progress(min(start + BLOCK, count))
    grouping.exchange()
    removed = np.flatnonzero(grouping.keeper != np.arange(count))
    return [grouping.copy(row) for row in removed.tolist()]


class _Grouping:
    """`keeper` (n,): the row that stands for each row; its own where it is kept."""

    def __init__(
        self, pictures: ArchivePictures, stays: BoolArray, apart: frozenset[frozenset[int]]
    ) -> None:
        self.keeper = np.arange(len(pictures.ids))
        self._pictures = pictures
        self._stays = stays
        self._apart = apart
        self._rule = CopyRule(pictures)
        self._keepers = RowIndex(pictures)
        self._of_pixels: dict[bytes, list[int]] = defaultdict(list)
        self._members: dict[int, list[int]] = defaultdict(list)

    def assign(self, rows: IntArray) -> None:
        """Find a keeper for each of these rows, which follow those assigned before."""
        block = RowIndex(self._pictures)
        block.add(rows)
        sides = (self._keepers.near(rows), block.near(rows))
        row, other = (np.concatenate(part) for part in zip(*sides, strict=True))
        pairs = self._rule.passing(row[other < row], other[other < row])
        for one in rows.tolist():
            if not self._stays[one]:
                self.keeper[one] = self._best(one, pairs.of(one))
            if self.keeper[one] == one:
                self._of_pixels[self._pictures.digests[one]].append(one)
            else:
                self._members[int(self.keeper[one])].append(one)
        self._keepers.add(rows[self.keeper[rows] == rows])

    def _best(self, row: int, pairs: Pairs) -> int:
        """The keeper of a row: one with the same pixels, else the likeliest, else the row."""
        for other in self._of_pixels[self._pictures.digests[row]]:
            if self._may_join([row], [other, *self._members[other]]):
                return other
        likeliest = np.argsort(-pairs.cosine, kind="stable")
        for other in pairs.other[likeliest].tolist():
            if self.keeper[other] == other and self._may_join(
                [row], [other, *self._members[other]]
            ):
                return int(other)
        return row

    def _may_join(self, rows: Sequence[int], group: Sequence[int]) -> bool:
        """Whether no word keeps one of the rows apart from one of the group."""
        if not self._apart:
            return True
        ids = self._pictures.ids
        pairs = (frozenset((int(ids[a]), int(ids[b]))) for a in rows for b in group)
        return self._apart.isdisjoint(pairs)

    def exchange(self) -> None:
        """Let an equally welcome picture stand for a group if it stands for one more by that.

        A noisy version may be the larger file and yet resemble the other versions less.
        """
        alone = self.keeper == np.arange(len(self.keeper))
        removed = RowIndex(self._pictures)
        removed.add(np.flatnonzero(~alone))
        kept = np.flatnonzero(alone & ~self._stays)[::-1]
        for start in range(0, len(kept), BLOCK):
            pairs = self._rule.passing(*removed.near(kept[start : start + BLOCK]))
            for row in kept[start : start + BLOCK].tolist():
                if self.keeper[row] == row:
                    self._join(row, pairs.of(row))

    def _join(self, row: int, pairs: Pairs) -> None:
        """Make a kept row a copy of one of `pairs`, if that can keep its whole group too."""
        rank = self._pictures.rank
        for other in pairs.other[np.argsort(-pairs.cosine, kind="stable")][:EXCHANGES_TRIED]:
            new, old = int(other), int(self.keeper[other])
            joining = [row, *self._members[row]]
            joined = [old, *self._members[old]]
            group = [*joining, *(one for one in joined if one != new)]
            welcome = rank[new] == rank[old] and rank[new] <= rank[row]
            free = old != row and not (new != old and self._stays[old])
            if not (welcome and free and len(group) <= LARGEST_EXCHANGE):
                continue
            if self._rule.all_pass(np.array(group), new) and self._may_join(joining, joined):
                for former in (row, old):
                    self._members.pop(former, None)
                self.keeper[[new, *group]] = new
                self._members[new] = group
                return

    def copy(self, row: int) -> Copy:
        """The verdict on a row that is not kept."""
        keeper = int(self.keeper[row])
        frame_id, keeper_id = int(self._pictures.ids[row]), int(self._pictures.ids[keeper])
        if self._pictures.digests[row] == self._pictures.digests[keeper]:
            return Copy(frame_id, keeper_id, _SAME_PIXELS.format(keeper_id))
        pair = self._rule.passing(np.array([row]), np.array([keeper]))
        bits = int(pair.bits[0])
        sizes = self._pictures.sizes
        words = _words(sizes[row].tolist(), sizes[keeper].tolist(), bits)
        numbers = f"cosine {pair.cosine[0]:.2f}, perceptual hash {bits} of 64 bits apart"
        return Copy(frame_id, keeper_id, f"{words} copy of f{keeper_id}: {numbers}")


_SAME_PIXELS: Final = (
    "same pixels as f{}: the files differ only in what they say about the picture (EXIF) or in how"
    " they store it"
)


def _words(own: Sequence[int], its: Sequence[int], bits: int) -> str:
    """What was done to a picture, as far as sizes (width, height) and bits tell."""
    aspect = (own[0] * its[1]) / max(1, own[1] * its[0])
    if bits > LIMITS[0][0] or abs(aspect - 1) > SAME_ASPECT:
        return "altered (cropped, turned, written on or filtered)"
    return "re-encoded" if own == its else f"resized ({own[0]} x {own[1]} of {its[0]} x {its[1]})"
