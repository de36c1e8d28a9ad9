"""What a server answered: read up to a limit, decompressed within the same limit, and as text for a model.

Invariants: no more than the limit is ever held, however small what was sent is; an answer that is too large is a
failure, never a part of it.
"""

from __future__ import annotations

import email.message
import email.utils
import re
import time
import zlib
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

ERROR_BYTES = 16_000  # of the body of an error
EXCERPT_CHARS = 1_000
_TEXTS = re.compile(r"text/|application/(?:[\w.+-]+\+)?(?:json|xml|yaml|javascript|x-ndjson|x-www-form-urlencoded)\b")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


class HttpFailure(Exception):
    """A call that came to nothing; the text is a sentence for a model or a person."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def title(self) -> str:
        with suppress(ValueError):
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        return str(self.status)

    def retry_after_s(self) -> float | None:
        """How long the server wants to be left alone."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        return None

    def text(self) -> str:
        """The body as it was sent, or the status where there is none. Raises `HttpFailure` where it is no text."""
        if not self.body:
            return self.title
        media, charset = self._content_type()
        if media and not _TEXTS.match(media):
            raise HttpFailure(f"it answered with {media}, which is no text")
        return self._decoded(charset)

    def failure(self) -> str:
        """What went wrong, with the beginning of what the server says of it."""
        media, charset = self._content_type()
        text = self._decoded(charset) if not media or _TEXTS.match(media) else ""
        if media == "text/html":
            found = _TITLE.search(text)
            text = found[1] if found else ""
        excerpt = " ".join(text.split())
        excerpt = excerpt if len(excerpt) <= EXCERPT_CHARS else excerpt[:EXCERPT_CHARS] + "..."
        return f"it answered {self.title}: {excerpt}" if excerpt else f"it answered {self.title}"

    def _content_type(self) -> tuple[str, str]:
        message = email.message.Message()
        message["Content-Type"] = self.headers.get("content-type", "")
        given = "content-type" in self.headers
        return message.get_content_type() if given else "", str(message.get_content_charset() or "utf-8")

    def _decoded(self, charset: str) -> str:
        try:
            return self.body.decode(charset, "replace")
        except (LookupError, ValueError):  # no encoding, or one that cannot replace what it does not know
            return self.body.decode("utf-8", "replace")


async def read_body(headers: dict[str, str], stream: AsyncIterable[bytes], limit_bytes: int, *, whole: bool) -> bytes:
    """The body, decompressed. With `whole`, `HttpFailure` where it is larger than the limit; else its beginning."""
    announced = headers.get("content-length", "")
    if whole and announced.isascii() and announced.isdigit() and int(announced[:18]) > limit_bytes:
        raise _too_large(limit_bytes)
    found = bytearray()
    decoder = _decoder(headers.get("content-encoding", ""))
    async for chunk in stream:
        for piece in decoder.decoded(chunk, limit_bytes - len(found) + 1):
            found += piece
            if len(found) > limit_bytes:
                if whole:
                    raise _too_large(limit_bytes)
                return bytes(found[:limit_bytes])
    decoder.finish()
    return bytes(found)


def _too_large(limit_bytes: int) -> HttpFailure:
    return HttpFailure(f"its answer is larger than the {limit_bytes:,} bytes that are read; ask for less of it")


class _Plain:
    def decoded(self, chunk: bytes, limit: int) -> Iterable[bytes]:
        return (chunk[:limit],)

    def finish(self) -> None:
        return


class _Zlib(_Plain):
    """gzip, which may be several one after the other, and deflate with or without its header."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._began = False

    def decoded(self, chunk: bytes, limit: int) -> Iterable[bytes]:
        while chunk:
            if self._inner.eof:
                self._inner = zlib.decompressobj(zlib.MAX_WBITS | 32)
            piece = self._inflated(chunk, limit)
            self._began = True
            limit -= len(piece)
            yield piece
            if limit <= 0:
                return
            chunk = self._inner.unused_data

    def finish(self) -> None:
        if self._began and not self._inner.eof:
            raise HttpFailure("its answer was cut off")

    def _inflated(self, chunk: bytes, limit: int) -> bytes:
        try:
            return self._inner.decompress(chunk, limit)
        except zlib.error:
            if self._began:
                raise HttpFailure("its answer cannot be decompressed") from None
        try:
            self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._inner.decompress(chunk, limit)
        except zlib.error:
            raise HttpFailure("its answer cannot be decompressed") from None


def _decoder(encoding: str) -> _Plain:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return _Plain()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Zlib()
    raise HttpFailure(f"its answer is compressed as '{encoding[:40]}', which is not read here")
