"""Strict YAML and JSON with positions.

Owns the way from bytes to plain data: text is UTF-8, a file is one document, keys are text and unique, only `true` and
`false` are booleans, dates stay text, numbers are finite. It does not know what the data means.

Invariants: reading never raises and never builds more than the file itself holds. The tree is built from the parser's
events, not by `yaml.compose`, because the composer recurses in C and crashes the process on deep nesting. Aliases share
their data; what they would expand to is counted, not built.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from changeover.project.problems import Problem

MAX_DEPTH = 64
MAX_EXPANSION = 20_000  # values that aliases may add to those written out
MAX_PROBLEMS = 50  # of syntax, per file
MAX_TEXT = 300  # characters of a source line that a problem quotes

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what libyaml counts as one
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
_SURROGATES = re.compile(r"(?<!\\)\\u[dD]([89abAB])([0-9a-fA-F]{2})\\u[dD]([c-fC-F])([0-9a-fA-F]{2})")
_INT = re.compile(r"[-+]?[0-9]{1,300}|0x[0-9a-fA-F]{1,250}|0o[0-7]{1,300}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TYPE_WORD = re.compile("\\b(?:list|dict)\\[[\\w.:?,| \ue000-\ue002-]*\\]")
_HIDDEN = str.maketrans("[],", "\ue000\ue001\ue002")
_SHOWN = str.maketrans("\ue000\ue001\ue002", "[],")
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Place(NamedTuple):
    """Where something stands. Lines and columns count from 1, 0 is the file as a whole."""

    line: int = 0
    column: int = 0
    width: int = 1
    text: str = ""


class Node:
    """A value with the place it stands at; `children` are pairs for a mapping, nodes for a list, None for a scalar."""

    __slots__ = (
        "anchor",
        "children",
        "column",
        "data",
        "end_column",
        "end_line",
        "height",
        "index",
        "line",
        "merged",
        "size",
    )

    def __init__(self, data: Any, event: Any, children: list[Any] | None) -> None:
        start, end = event.start_mark, event.end_mark
        self.data = data
        self.children = children
        self.line: int = start.line  # numbers and not pairs of them: nothing more for the garbage collector to visit
        self.column: int = start.column
        self.end_line: int = end.line
        self.end_column: int = end.column
        self.anchor: str | None = None
        self.size = 1  # values it expands to
        self.height = 1  # levels it expands to
        self.index: dict[str, tuple[Node, Node]] | None = None
        self.merged: set[str] | None = None  # keys that came through `<<`

    @property
    def start(self) -> tuple[int, int]:
        return self.line, self.column

    @property
    def end(self) -> tuple[int, int]:
        return self.end_line, self.end_column

    def child(self, step: str | int) -> tuple[Node, Node] | None:
        """The key and the value found one step down; for an item of a list both are the item."""
        if isinstance(self.data, dict):
            if self.index is None:
                self.index = {key.data: (key, value) for key, value in self.children or ()}
            return self.index.get(str(step))
        if isinstance(self.data, list) and isinstance(step, int) and 0 <= step < len(self.data):
            item = (self.children or [])[step]
            return item, item
        return None


class Lines:
    """The lines of a text, split only when the first problem needs one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[str] | None = None

    def line(self, number: int) -> str:
        if self._lines is None:
            self._lines = _LINE_BREAK.split(self._text)
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def place(self, line: int, column: int, width: int = 1) -> Place:
        """A place in this text; the quoted line and the width are cut to a sensible length."""
        text = self.line(line)
        return Place(line, column, max(min(width, len(text) - column + 1), 1), text if len(text) <= MAX_TEXT else "")

    def at(self, index: int) -> Place:
        breaks = list(_LINE_BREAK.finditer(self._text, 0, index))
        return self.place(len(breaks) + 1, index - (breaks[-1].end() if breaks else 0) + 1)


@dataclass(frozen=True)
class Document:
    """One file as plain data: dict with text keys, list, str, int, float, bool, None."""

    path: str
    text: str = field(default="", repr=False)
    root: Node | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()
    lines: Lines = field(default_factory=lambda: Lines(""), repr=False, compare=False)

    @property
    def data(self) -> Any:
        return self.root.data if self.root else None

    @property
    def readable(self) -> bool:
        """Whether there is data to look at; duplicate keys alone do not hide it."""
        return all(problem.code == "duplicate-key" for problem in self.problems)

    def locate(self, *path: str | int, on_key: bool = False) -> Place:
        """The place of the value at `path`, or of its key; of the nearest enclosing one where there is none."""
        if self.root is None:
            return Place()
        key = value = self.root
        for step in path:
            found = value.child(step)
            if found is None:
                on_key = True  # the enclosing entry is named by its key
                break
            key, value = found
        return self._place(key if on_key else value)

    def _place(self, node: Node) -> Place:
        line, column = node.start
        width = node.end[1] - column if node.end[0] == line else MAX_TEXT
        return self.lines.place(line + 1, column + 1, width)

    def problem(
        self, code: str, message: str, *path: str | int, on_key: bool = False, hint: str = "", severity: Any = "error"
    ) -> Problem:
        place = self.locate(*path, on_key=on_key)
        return Problem(
            code, message, self.path, place.line, place.column, hint, severity, text=place.text, width=place.width
        )


def decode(path: str, content: bytes) -> str | Problem:
    """The text of a file, or why it is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start
        before = content[:start].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        place = Lines(before + "?").at(len(before))
        message = f"byte 0x{content[start] if start < len(content) else 0:02x} is not UTF-8"
        return Problem("encoding", message, path, place.line, place.column, "save the file as UTF-8")
    if found := _CONTROL.search(text):
        place = Lines(text[: found.end()]).at(found.start())
        message = f"control character U+{ord(found[0]):04X} does not belong in a text file"
        return Problem("encoding", message, path, place.line, place.column, "remove it")
    return text


def read(path: str, content: bytes) -> Document:
    """The document in a file. What is wrong with it is in `problems`."""
    text = decode(path, content)
    if isinstance(text, Problem):
        return Document(path, problems=(text,))
    if path.endswith(".json"):
        if wrong := _json_problem(path, text):
            return Document(path, text, problems=(wrong,))
        text = _SURROGATES.sub(_joined, text)  # YAML knows no surrogate pairs
    return read_text(path, text)


def read_text(path: str, text: str) -> Document:
    """The document in a text that is known to be clean."""
    reader = _Reader(path, text)
    root = reader.read()
    return Document(path, text, root, tuple(reader.problems), reader.lines)


def _json_problem(path: str, text: str) -> Problem | None:
    try:
        json.loads(text, parse_int=str)
    except json.JSONDecodeError as error:
        place = Lines(text).place(error.lineno, error.colno)
        return Problem("yaml-syntax", f"not JSON: {error.msg}", path, place.line, place.column, text=place.text)
    except RecursionError:
        return Problem("yaml-syntax", "nested too deeply", path)
    return None


def _joined(pair: re.Match[str]) -> str:
    high = 0xD800 + (int(pair[1], 16) - 8) * 256 + int(pair[2], 16)
    low = 0xDC00 + (int(pair[3], 16) - 12) * 256 + int(pair[4], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08X}"


def _plain(text: str) -> Any:
    """What a word without quotes means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


class _Stop(Exception):
    """The rest of the file cannot be read; the problem is noted."""


class _Reader:
    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.lines = Lines(text)
        self.problems: list[Problem] = []
        self._anchors: dict[str, Node | None] = {}
        self._open: list[Node] = []
        self._keys: list[Node | None] = []  # per open node, the key that waits for its value
        self._written = 0
        self._copied = 0
        self._hides = False
        self._root: Node | None = None

    def read(self) -> Node | None:
        text = _with_type_words(self.text)
        self._hides = text is not self.text
        loader = _Loader(text)
        try:
            while loader.check_event():
                self._take(loader.get_event())
            return self._checked()
        except _Stop:
            return None
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except yaml.YAMLError as error:
            self._note("yaml-syntax", str(error).splitlines()[0], None)
        finally:
            loader.dispose()
        return None

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            self._note(
                "yaml-syntax", "a second document starts here", event, "a file is one document: remove the '---'"
            )
            raise _Stop

    def _scalar(self, event: Any) -> Node:
        if self._hides:
            event.value = event.value.translate(_SHOWN)
        tag = event.tag
        if tag and tag != "!" and tag not in _PLAIN_TAGS:
            self._note("yaml-syntax", f"the tag {_shown(tag)} is not read here", event, "write a plain value")
        plain = not event.style and tag is None
        node = Node(_plain(event.value) if plain else event.value, event, None)
        if tag and tag in _PLAIN_TAGS and tag != _TAG + "str":
            node.data = _plain(event.value)
        return self._anchored(node, event)

    def _anchored(self, node: Node, event: Any) -> Node:
        self._written += 1
        if event.anchor is not None:
            node.anchor = event.anchor
            self._anchors[event.anchor] = node if node.children is None else None
        return node

    def _begin(self, event: Any) -> None:
        if event.tag and event.tag != "!" and event.tag not in _PLAIN_TAGS:
            self._note("yaml-syntax", f"the tag {_shown(event.tag)} is not read here", event, "write a plain value")
        if len(self._open) >= MAX_DEPTH:
            self._note("yaml-syntax", f"nested more than {MAX_DEPTH} levels deep", event)
            raise _Stop
        data: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(self._anchored(Node(data, event, []), event))
        self._keys.append(None)

    def _end(self, event: Any) -> None:
        node = self._open.pop()
        self._keys.pop()
        mark = event.end_mark
        node.end_line, node.end_column = mark.line, mark.column
        if node.anchor is not None:
            self._anchors[node.anchor] = node
        self._add(node)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self._anchors:
            self._note("yaml-syntax", f"the alias *{name} has no anchor", event, f"write &{name} before it")
            raise _Stop
        target = self._anchors[name]
        if target is None:
            self._note("alias-limit", f"the alias *{name} stands inside what it names", event, "write it out")
            raise _Stop
        copy = Node(target.data, event, target.children)
        copy.size, copy.height, copy.index = target.size, target.height, target.index
        self._add(copy)

    def _add(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent.data, list):
            parent.data.append(node.data)
            parent.children.append(node)  # type: ignore[union-attr]
        elif self._keys[-1] is None:
            self._keys[-1] = self._key(node)
            return
        else:
            key, self._keys[-1] = self._keys[-1], None
            self._pair(parent, key, node)
        parent.size += node.size
        if node.height >= parent.height:
            parent.height = node.height + 1

    def _key(self, node: Node) -> Node:
        if node.children is not None:
            self._note("yaml-syntax", "a key is a word, not a list or a mapping", node, "put quotes around it")
            raise _Stop
        if not isinstance(node.data, str):
            node.data = _source(self.lines, node)
        return node

    def _pair(self, parent: Node, key: Node, value: Node) -> None:
        if key.data == "<<" and value.children is not None:
            self._merge(parent, value)
            return
        if key.data in parent.data:
            if parent.merged and key.data in parent.merged:
                parent.merged.discard(key.data)
            else:
                self._note("duplicate-key", f"the key '{_shown(key.data)}' is written twice", key, "keep one of them")
        parent.data[key.data] = value.data
        parent.children.append((key, value))  # type: ignore[union-attr]

    def _merge(self, parent: Node, source: Node) -> None:
        """Take over the keys of `<<`; those that the mapping writes itself come before them, in any order."""
        if isinstance(source.data, list):
            for item in source.children or ():
                if isinstance(item.data, dict):
                    self._merge(parent, item)
            return
        self._copied += len(source.data)
        if self._copied > MAX_EXPANSION:
            self._note("alias-limit", f"'<<' copies more than {MAX_EXPANSION:,} keys", source, "write less of them")
            raise _Stop
        parent.merged = parent.merged or set()
        for name in source.data:
            if name not in parent.data:
                key, value = source.child(name) or (source, source)
                parent.data[name] = value.data
                parent.children.append((key, value))  # type: ignore[union-attr]
                parent.merged.add(name)

    def _checked(self) -> Node | None:
        root = self._root
        if root is not None and root.size - self._written > MAX_EXPANSION:
            message = f"aliases expand to {_count(root.size)} values, {MAX_EXPANSION:,} are allowed"
            self._note("alias-limit", message, None, "write the values out, or repeat less")
            return None
        if root is not None and root.height > MAX_DEPTH:
            self._note("alias-limit", f"aliases nest more than {MAX_DEPTH} levels deep", None)
            return None
        return root

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        words = [str(part) for part in (error.context, error.problem) if part]
        hint = ""
        if error.problem and "cannot start any token" in error.problem and mark:
            letter = self.lines.line(mark.line + 1)[mark.column : mark.column + 1]
            words = ["a tab cannot indent YAML" if letter == "\t" else f"{letter!r} cannot start a value"]
            hint = "indent with spaces" if letter == "\t" else "put quotes around it"
        self._note("yaml-syntax", ": ".join(words) or "not YAML", mark, hint)

    def _note(self, code: str, message: str, where: Any, hint: str = "") -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop
        place = self._where(where)
        self.problems.append(
            Problem(code, message, self.path, place.line, place.column, hint, text=place.text, width=place.width)
        )

    def _where(self, where: Any) -> Place:
        if where is None:
            return Place()
        if isinstance(where, Node):
            width = where.end[1] - where.start[1] if where.end[0] == where.start[0] else 1
            return self.lines.place(where.start[0] + 1, where.start[1] + 1, width)
        mark = getattr(where, "start_mark", where)
        return self.lines.place(mark.line + 1, mark.column + 1)


def _with_type_words(text: str) -> str:
    """The text with the brackets of `list[str]` hidden, which YAML would take for its own inside `{...}`.

    Each is one character for another, so that positions stay true; they are shown again in the values.
    """
    if ("list[" not in text and "dict[" not in text) or any(letter in text for letter in "\ue000\ue001\ue002"):
        return text
    for _ in range(8):
        hidden = _TYPE_WORD.sub(lambda word: word[0].translate(_HIDDEN), text)
        if hidden == text:
            break
        text = hidden
    return text


def _source(lines: Lines, node: Node) -> str:
    """A key as it was written, such as `true` or `1`."""
    return lines.line(node.start[0] + 1)[node.start[1] : node.end[1]] if node.start[0] == node.end[0] else ""


def _shown(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else "more than a billion"
