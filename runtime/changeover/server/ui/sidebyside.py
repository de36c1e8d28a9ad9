"""A difference of two texts as people read it: line beside line, with the words that changed marked. Pure.

Starts from a unified diff, as the API gives it, and from the new text where the unchanged parts are to be unfolded.
Everything is bounded: so many lines, so many characters of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

LINE_CHARS = 1_000  # of one line that are shown
ALIKE = 0.35  # from here on two lines are one that was changed
MATCHED_AT_MOST = 2_500  # words before times words after that are compared with each other
PAIRED_AT_MOST = 1_000  # lines before times lines after that are too
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
WORD = re.compile(r"\w+|\s+|[^\w\s]")

Parts = tuple[tuple[str, bool], ...]
"""A line in pieces, each with whether it changed."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    parts: Parts


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the old text beside the one of the new text that it became; None where there is none."""

    kind: str  # same, changed, removed, added
    old: Line | None
    new: Line | None


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that are shown, or `count` unchanged ones that are folded; without rows where they are not known."""

    rows: tuple[Row, ...]
    folded: bool = False
    count: int = 0


@dataclass(frozen=True, slots=True)
class Hunk:
    old_start: int
    new_start: int
    lines: tuple[str, ...]


def side_by_side(diff: str, limit: int, text: str | None = None) -> tuple[list[Section], int]:
    """The sections of a unified diff, and how many of its lines were left out at the limit.

    `text` is the new text, from which unchanged parts are told.
    """
    lines = [line for line in diff.split("\n") if not line.startswith("\\")]
    if lines and not lines[-1]:
        lines.pop()
    body = lines[2:]  # the names of the files
    known = _lines(text) if text is not None else None
    return list(_sections(_hunks(body[:limit]), known, is_whole=len(body) <= limit)), max(0, len(body) - limit)


def words(old: str, new: str) -> tuple[Parts, Parts]:
    """Two lines in pieces, with what differs marked; between the first and the last of it all, where that is much."""
    mine, theirs = WORD.findall(old), WORD.findall(new)
    shorter = min(len(mine), len(theirs))
    head = next((at for at in range(shorter) if mine[at] != theirs[at]), shorter)
    tail = next((at for at in range(shorter - head) if mine[-1 - at] != theirs[-1 - at]), shorter - head)
    inner, other = mine[head : len(mine) - tail], theirs[head : len(theirs) - tail]
    before: list[tuple[str, bool]] = [("".join(mine[:head]), False)]
    after = list(before)
    for is_same, i, j, k, m in _matches(inner, other):
        before.append(("".join(inner[i:j]), not is_same))
        after.append(("".join(other[k:m]), not is_same))
    end = ("".join(mine[len(mine) - tail :]), False)
    return _joined((*before, end)), _joined((*after, end))


def _matches(mine: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[bool, int, int, int, int]]:
    if len(mine) * len(theirs) > MATCHED_AT_MOST:
        yield False, 0, len(mine), 0, len(theirs)
        return
    for tag, i, j, k, m in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        yield tag == "equal", i, j, k, m


def _sections(hunks: Iterable[Hunk], text: Sequence[str] | None, *, is_whole: bool) -> Iterator[Section]:
    old_at, new_at = 1, 1
    for hunk in hunks:
        if hunk.new_start > new_at:
            yield _folded(old_at, new_at, hunk.new_start - new_at, text)
        rows = tuple(_rows(hunk))
        yield Section(rows)
        old_at = hunk.old_start + sum(row.old is not None for row in rows)
        new_at = hunk.new_start + sum(row.new is not None for row in rows)
    if is_whole and text is not None and new_at <= len(text):
        yield _folded(old_at, new_at, len(text) - new_at + 1, text)


def _folded(old_at: int, new_at: int, count: int, text: Sequence[str] | None) -> Section:
    if text is None:
        return Section((), True, count)
    lines = text[new_at - 1 : new_at - 1 + count]
    rows = (_same(old_at + place, new_at + place, line) for place, line in enumerate(lines))
    return Section(tuple(rows), True, count)


def _hunks(lines: Iterable[str]) -> Iterator[Hunk]:
    start: tuple[int, int] | None = None
    held: list[str] = []
    for line in lines:
        found = HUNK.match(line)
        if found is None:
            held.append(line)
            continue
        if start is not None:
            yield Hunk(*start, tuple(held))
        # a side without lines is told as the line before it
        old, new = (int(found[at]) + (found[at + 1] == "0") for at in (1, 3))
        start, held = (old, new), []
    if start is not None:
        yield Hunk(*start, tuple(held))


def _rows(hunk: Hunk) -> Iterator[Row]:
    old_at, new_at = hunk.old_start, hunk.new_start
    gone: list[str] = []
    come: list[str] = []
    for line in (*hunk.lines, None):
        if line is not None and line.startswith("-"):
            gone.append(line[1:])
        elif line is not None and line.startswith("+"):
            come.append(line[1:])
        else:
            yield from _replaced(old_at, new_at, gone, come)
            old_at, new_at = old_at + len(gone), new_at + len(come)
            gone, come = [], []
            if line is not None:
                yield _same(old_at, new_at, line[1:])
                old_at, new_at = old_at + 1, new_at + 1


def _replaced(old_at: int, new_at: int, gone: Sequence[str], come: Sequence[str]) -> Iterator[Row]:
    """Lines that went beside those that came: alike ones in one row, the others alone, both in their order."""
    i = k = 0
    for mine, theirs in (*_pairs(gone, come), (len(gone), len(come))):
        yield from (Row("removed", Line(old_at + at, ((_cut(gone[at]), False),)), None) for at in range(i, mine))
        yield from (Row("added", None, Line(new_at + at, ((_cut(come[at]), False),))) for at in range(k, theirs))
        if mine < len(gone) and theirs < len(come):
            before, after = words(_cut(gone[mine]), _cut(come[theirs]))
            yield Row("changed", Line(old_at + mine, before), Line(new_at + theirs, after))
        i, k = mine + 1, theirs + 1


def _pairs(gone: Sequence[str], come: Sequence[str]) -> list[tuple[int, int]]:
    """Which line became which, so that as much as possible stays alike and the order holds."""
    if len(gone) * len(come) > PAIRED_AT_MOST:
        return []
    mine, theirs = [_words(line) for line in gone], [_words(line) for line in come]
    best = [[0.0] * (len(come) + 1) for _ in range(len(gone) + 1)]
    for i in reversed(range(len(gone))):
        for k in reversed(range(len(come))):
            alike = _alike(mine[i], theirs[k])
            best[i][k] = max(best[i + 1][k], best[i][k + 1], alike + best[i + 1][k + 1] if alike >= ALIKE else 0)
    pairs: list[tuple[int, int]] = []
    i = k = 0
    while i < len(gone) and k < len(come):
        if best[i][k] == best[i + 1][k]:
            i += 1
        elif best[i][k] == best[i][k + 1]:
            k += 1
        else:
            pairs.append((i, k))
            i, k = i + 1, k + 1
    return pairs


def _words(line: str) -> tuple[str, frozenset[str]]:
    """The first word of a line, and all of them."""
    words = [word for word in WORD.findall(line[:LINE_CHARS]) if not word.isspace()]
    return words[0] if words else "", frozenset(words)


def _alike(mine: tuple[str, frozenset[str]], theirs: tuple[str, frozenset[str]]) -> float:
    """How much two lines share; those that begin alike, as the same key of YAML does, share more."""
    shared = len(mine[1] & theirs[1]) / (len(mine[1] | theirs[1]) or 1)
    return shared + 0.5 if mine[0] == theirs[0] and mine[0].isalnum() else shared


def _joined(parts: Iterable[tuple[str, bool]]) -> Parts:
    """Pieces without empty ones; a space between two marked ones is marked with them."""
    held: list[tuple[str, bool]] = []
    told = [part for part in parts if part[0]]
    for place, (text, is_marked) in enumerate(told):
        between = text.isspace() and 0 < place < len(told) - 1 and told[place - 1][1] and told[place + 1][1]
        is_marked = is_marked or between
        if held and held[-1][1] == is_marked:
            held[-1] = (held[-1][0] + text, is_marked)
        else:
            held.append((text, is_marked))
    return tuple(held)


def _same(old: int, new: int, line: str) -> Row:
    parts = ((_cut(line), False),)
    return Row("same", Line(old, parts), Line(new, parts))


def _cut(line: str) -> str:
    return line if len(line) <= LINE_CHARS else line[:LINE_CHARS] + "…"


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]
