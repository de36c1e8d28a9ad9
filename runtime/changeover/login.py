"""The name and the password before the `@` of an address: how they are sent, and what of them is a secret.

Owns their one reading, and the header that stands for them. Which addresses are asked is not known here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

_WRITTEN = re.compile(r"//([^/\s?#]+)@")


@dataclass(frozen=True)
class Login:
    """`written` is as it stands in the address: percent-encoded, the password, if any, behind the first colon."""

    written: str = field(repr=False)

    @property
    def name(self) -> str:
        return unquote(self.written.partition(":")[0])

    @property
    def authorization(self) -> str:
        """The value of the header `Authorization`, in the scheme Basic."""
        return f"Basic {_encoded(f'{self.name}:{unquote(self._password)}')}"

    @property
    def secrets(self) -> frozenset[str]:
        """What nobody else may see: the password, or a name that stands alone, as written, as meant and as sent."""
        meant = unquote(self.written)
        password = self._password or self.written.removesuffix(":")
        sent = self.authorization.removeprefix("Basic ")
        return frozenset((self.written, meant, password, unquote(password), sent, _encoded(meant)))

    @property
    def parts(self) -> frozenset[str]:
        """Name and password one by one, as written and as meant."""
        return frozenset(said for part in self.written.split(":") for said in (part, unquote(part)))

    @property
    def _password(self) -> str:
        return self.written.partition(":")[2]


def logins_in(text: str) -> Iterator[Login]:
    """Those of all addresses in a text."""
    return map(Login, _WRITTEN.findall(text))


def _encoded(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogatepass")).decode()  # a variable may hold what is no text
