"""How lines differ, as a unified diff. Pure.

Invariant: the work is bounded. What difflib looks at grows with the pairs of equal lines and with the number of
differences, and for some texts of a few hundred kilobytes it takes hours, of which nothing can stop it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import Match, SequenceMatcher
from itertools import accumulate

WORK = 20_000_000  # lines and pairs of equal lines that are looked at: a second or two
SHARE = 4  # of what is left, for one of many texts
LEAST = 10_000  # for each of them, whatever the others took
CONTEXT_LINES = 3


class TooDifferent(Exception):
    """Telling how the lines differ takes too long."""


class Work:
    """What may be spent on telling how several texts differ."""

    def __init__(self, left: int = WORK) -> None:
        self.left = left

    def share(self) -> int:
        return max(self.left // SHARE, LEAST)


def unified(
    old: Sequence[str],
    new: Sequence[str],
    before: str = "",
    after: str = "",
    *,
    end: str = "\n",
    work: Work | None = None,
) -> Iterator[str]:
    """The lines of a unified diff, none where nothing differs; `end` ends those that are of neither text.

    Raises `TooDifferent` before anything is given. `work` is shared by several of them.
    """
    before_it, after_it = _alike(old, new)
    old, new = old[before_it : len(old) - after_it], new[before_it : len(new) - after_it]
    matcher = _Matcher(old, new, (work or Work()).share())
    try:
        groups = list(matcher.get_grouped_opcodes(CONTEXT_LINES))
    finally:
        if work:
            work.left -= matcher.done
    if groups:
        yield f"--- {before}{end}"
        yield f"+++ {after}{end}"
    for group in groups:
        (_, old_from, _, new_from, _), (_, _, old_to, _, new_to) = group[0], group[-1]
        places = _range(old_from, old_to, before_it), _range(new_from, new_to, before_it)
        yield f"@@ -{places[0]} +{places[1]} @@{end}"
        for change, old_at, old_until, new_at, new_until in group:
            if change == "equal":
                yield from (f" {line}" for line in old[old_at:old_until])
            else:
                yield from (f"-{line}" for line in old[old_at:old_until])
                yield from (f"+{line}" for line in new[new_at:new_until])


def _alike(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """How many lines at both ends are the same, and farther from a difference than what is told around it."""
    limit = min(len(old), len(new))
    first = next((at for at in range(limit) if old[at] != new[at]), limit)
    last = next((at for at in range(limit - first) if old[-1 - at] != new[-1 - at]), limit - first)
    return max(first - CONTEXT_LINES, 0), max(last - CONTEXT_LINES, 0)


def _range(start: int, stop: int, skipped: int) -> str:
    """A side without lines is told as the line before it."""
    count, start = stop - start, start + skipped
    return str(start + 1) if count == 1 else f"{start + 1 if count else start},{count}"


class _Matcher(SequenceMatcher[str]):
    a: Sequence[str]
    b2j: dict[str, list[int]]

    def __init__(self, old: Sequence[str], new: Sequence[str], limit: int) -> None:
        super().__init__(None, old, new)
        self.done = 0
        self._limit = limit
        self._until = list(accumulate((1 + len(self.b2j.get(line, ())) for line in old), initial=0))

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        wanted = self._until[len(self.a) if ahi is None else ahi] - self._until[alo]
        if self.done + wanted > self._limit:
            raise TooDifferent
        self.done += wanted
        return super().find_longest_match(alo, ahi, blo, bhi)
