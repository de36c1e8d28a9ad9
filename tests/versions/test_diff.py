from __future__ import annotations

import random
import time

from changeover.versions.diff import DIFF_LIMIT_LINES, TEXT_LIMIT_BYTES, changed_paths, diff
from changeover.versions.manifest import Manifest

OLD = {"a.md": b"one\ntwo\n", "gone.md": b"bye\n", "same.md": b"same", "data.bin": b"\0\1"}
NEW = {"a.md": b"one\n2", "new.md": b"hi\n", "same.md": b"same", "data.bin": b"\0\2"}


def test_each_file_that_differs_is_named_once_with_its_kind() -> None:
    assert [(change.path, change.change) for change in diff(OLD, NEW)] == [
        ("a.md", "changed"),
        ("data.bin", "changed"),
        ("gone.md", "removed"),
        ("new.md", "added"),
    ]
    assert changed_paths(Manifest.of(OLD), Manifest.of(NEW)) == ["a.md", "data.bin", "gone.md", "new.md"]


def test_text_is_shown_as_a_unified_diff() -> None:
    changed, binary, removed, added = diff(OLD, NEW)
    assert changed.diff == "--- a/a.md\n+++ b/a.md\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n\\ No newline at end of file\n"
    assert binary.binary
    assert not binary.diff
    assert "+++ /dev/null" in removed.diff
    assert "--- /dev/null" in added.diff


def test_invalid_utf8_is_binary() -> None:
    assert diff({"a": b"\xff"}, {"a": b"x"})[0].binary


def test_long_differences_are_bounded() -> None:
    lines = b"".join(b"%d\n" % number for number in range(DIFF_LIMIT_LINES * 2))
    long = diff({}, {"a": lines})[0]
    assert long.truncated
    assert long.diff.count("\n") == DIFF_LIMIT_LINES
    huge = diff({"a": b"x" * (TEXT_LIMIT_BYTES + 1)}, {"a": b"x"})[0]
    assert huge.too_long
    assert not huge.diff


def test_lines_that_take_hours_to_compare_are_only_named() -> None:
    """Pairs of equal lines, and differences, each in number as large as such a file may have."""
    chance = random.Random(7)
    repeated = ["".join(f"{chance.randrange(110)}\n" for _ in range(60_000)).encode() for _ in range(2)]
    other = ["".join(f"{n}\n{n}{word}\n" for n in range(20_000)).encode() for word in "ab"]
    old = {"small": b"one\n", **{f"{n}": texts[0] for n in range(20) for texts in (repeated, other)}}
    new = {"small": b"two\n", **{f"{n}": texts[1] for n in range(20) for texts in (repeated, other)}}
    began = time.process_time()
    told = {change.path: change for change in diff(old, new)}
    assert time.process_time() - began < 20
    assert {path for path, change in told.items() if not change.too_long} == {"small"}


def test_one_line_of_a_long_file_of_few_words_is_told() -> None:
    lines = ["yes\n", "no\n", "\n"] * 15_000
    told = diff({"a": "".join(lines).encode()}, {"a": "".join([*lines[:9], "maybe\n", *lines[10:]]).encode()})[0]
    assert told.diff.splitlines()[2:] == ["@@ -7,7 +7,7 @@", " yes", " no", " ", "-yes", "+maybe", " no", " ", " yes"]


def test_equal_files_differ_in_nothing() -> None:
    assert diff(OLD, dict(OLD)) == []
