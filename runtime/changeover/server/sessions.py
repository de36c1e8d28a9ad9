"""Who is signed in with a browser: a cookie that proves that its holder knew the token.

The cookie holds a name and a proof, and never the token. The proof is made with a key of the token, so that every
server with this token knows it, none has to remember it, and a new token ends all sessions. A name is what its holder
says of himself, for the history.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from itsdangerous import BadSignature, URLSafeTimedSerializer

LASTS_S = 30 * 86_400
NAME_LIMIT_CHARS = 100
COOKIE_LIMIT_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class Session:
    """`name` may be empty."""

    name: str


class Sessions:
    """Makes and knows the cookies of one token; of none where everybody who reaches the port may look."""

    def __init__(self, token: str | None) -> None:
        self._token = (token or "").encode()
        self._signed = URLSafeTimedSerializer(
            self._token or b"no token",
            salt="changeover session",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
        # of this token, so that servers on several ports of one host do not sign each other's people out
        self.cookie = f"changeover_{hmac.digest(self._token, b'name of the cookie', 'sha256').hex()[:8]}"

    @property
    def asks_token(self) -> bool:
        return bool(self._token)

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(self._token).digest())

    def begin(self, name: str) -> str:
        """The value of the cookie of a new session."""
        return str(self._signed.dumps(told_name(name)))

    def of(self, cookies: str) -> Session | None:
        """The session of a `Cookie` header; None where there is none, or it is over or none of ours."""
        for part in cookies.split(";") if self.cookie in cookies else ():
            name, _, value = part.strip().partition("=")
            if name == self.cookie and len(value) <= COOKIE_LIMIT_CHARS:
                try:
                    return Session(str(self._signed.loads(value, max_age=LASTS_S)))
                except BadSignature:
                    continue  # another server of this host, or another path, may have left one of the same name
        return None


def told_name(given: str) -> str:
    """A name as the history may hold it."""
    return re.sub(r"[^\w.@:+-]", "", given.strip().replace(" ", "."))[:NAME_LIMIT_CHARS]
