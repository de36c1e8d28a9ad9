"""Values that nobody may see, and how they are taken out of a text: a message, an error, a line of a log, an event.

Owns which parts of a value are secret, how others may spell them, and what stands in their place. Where values come
from, and which texts are to be without them, is known to who calls. Fields of a log that are dropped by their name
are the log's.

Invariants: after `hidden` no part of a value is in the text, also none that the hiding itself made; a text without
such a part is as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from changeover.login import logins_in

HIDDEN = "***"
MIN_SECRET_CHARS = 4
"""What is shorter is a number or a flag, and would be found inside other words. It is more than `HIDDEN` has, so that
what is hidden makes a text shorter, and hiding comes to an end."""
MIN_LINE_CHARS = 8  # of a line of a value: messages are often cut into lines, and short ones are in many a text
MIN_NAME_CHARS = 6  # of a name beside a password: it may be a token, while `user` and `root` are words
_SCHEME = re.compile(r"^(?:basic|bearer|token)\s+", re.IGNORECASE)
_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|KEY|CREDENTIAL|_INDEX", re.IGNORECASE)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"`<>)]+", re.IGNORECASE)
_UNITS = re.compile(r"\\+|.", re.DOTALL)

Stretch = tuple[int, int, str]
"""Where in a text something secret stands, and the value that it is of."""


@dataclass(frozen=True)
class Secrets:
    """Of a value its long lines, what is behind the scheme of a header, and the logins of addresses are secret too.

    They are found as they are, and as addresses, JSON and `repr` spell them.
    """

    values: frozenset[str] = field(default=frozenset(), repr=False)

    def hidden(self, text: str) -> str:
        """The text with `***` for everything that is secret."""
        while found := self._found(text):
            text = _replaced(text, found, {})
        return text

    def named(self, text: str, names: Mapping[str, str]) -> str:
        """The text with its name in place of each value: a person is to see which one was meant."""
        return _replaced(text, self._found(text), names)

    def _found(self, text: str) -> list[Stretch]:
        """In order. What overlaps is one stretch, so that no rest of a value is left; it is the longest one's."""
        found: list[Stretch] = []
        longest = 0
        for start, end, value in sorted(self._matches(text)):
            if found and start < found[-1][1]:
                before, until, known = found.pop()
                found.append((before, max(until, end), value if end - start > longest else known))
                longest = max(longest, end - start)
            else:
                found.append((start, end, value))
                longest = end - start
        return found

    def _matches(self, text: str) -> Iterator[Stretch]:
        for pattern, value in self._patterns:
            yield from ((match.start(), match.end(), value) for match in pattern.finditer(text))

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """Made with the first text: most secrets never meet one."""
        parts = {part: value for value in sorted(self.values) for part in _parts(value)}
        parts.update((part, part) for part in self.values & parts.keys())  # it may be a line of another value, too
        return [(re.compile("".join(map(_spellings, _UNITS.findall(part)))), value) for part, value in parts.items()]


def secrets_in(environment: Mapping[str, str]) -> Secrets:
    """The values of variables whose names say that they are secrets, and the logins in the addresses of all others."""
    found: set[str] = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            found.add(value)
        for login in logins_in(value):
            found |= {*login.secrets, *(part for part in login.parts if len(part) >= MIN_NAME_CHARS)}
    return Secrets(frozenset(found))


def without_addresses(text: str) -> str:
    """The text with nothing but the host of each address: all else of one may be a secret."""
    return _ADDRESS.sub(lambda found: _host_of(found[0]), text)


def _host_of(address: str) -> str:
    scheme, _, rest = address.partition("://")
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    host = place.partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{host}/{'...' if '/' in place and not place.endswith('/') else ''}"


def _parts(value: str) -> Iterable[str]:
    """What is secret of a value."""
    lines = (line for line in value.splitlines() if len(line) >= MIN_LINE_CHARS)
    logins = (secret for login in logins_in(value) for secret in login.secrets)
    whole = (value, value.strip())
    found = {*whole, *(_SCHEME.sub("", said) for said in whole), *lines, *logins}
    return (part for part in found if len(part) >= MIN_SECRET_CHARS)


def _spellings(unit: str) -> str:
    """A pattern for one character of a value, or for several backslashes: each may be one or two.

    They are counted together, since ways to share them out one by one are as many as powers of two.
    """
    if unit.isascii() and unit.isalnum():
        return unit
    if unit.startswith("\\"):
        return rf"(?:\\|%5[cC]){{{len(unit)},{2 * len(unit)}}}"
    percent = "".join(f"%{byte:02x}" for byte in unit.encode("utf-8", "surrogatepass"))
    found = {re.escape(unit), f"(?i:{percent})", f"(?i:{re.escape(json.dumps(unit)[1:-1])})", re.escape(f"\\{unit}")}
    found |= {r"\+"} if unit == " " else set()
    return f"(?:{'|'.join(sorted(found, key=len, reverse=True))})"


def _replaced(text: str, found: list[Stretch], names: Mapping[str, str]) -> str:
    pieces, at = [], 0
    for start, end, value in found:
        pieces += [text[at:start], names.get(value, HIDDEN)]
        at = end
    return "".join([*pieces, text[at:]])
