"""One request of a call to an HTTP server, and where its answer leads. Pure.

Invariant: headers that the project or a model gave go to the server that the project names, and to no other.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from changeover.login import Login
from changeover.resources.http_answers import Answer, HttpFailure

REDIRECTS = frozenset((301, 302, 303, 307, 308))
DEFAULTS = (
    ("User-Agent", "changeover"),
    ("Accept", "application/json, text/*;q=0.9, */*;q=0.5"),
    ("Accept-Encoding", "gzip, deflate"),
)

Headers = tuple[tuple[str, str], ...]
Origin = tuple[str, str, int]


@dataclass(frozen=True)
class Hop:
    """Redirects make further ones."""

    method: str
    url: httpx.URL
    headers: Headers
    content: bytes | None

    @property
    def origin(self) -> Origin:
        return origin_of(self.url)


def origin_of(url: httpx.URL) -> Origin:
    return url.scheme, url.raw_host.decode("ascii").lower(), url.port or (443 if url.scheme == "https" else 80)


def merged(*groups: Headers) -> Headers:
    """All headers; of those with one name only the ones of the first group that has it."""
    found: list[tuple[str, str]] = []
    for group in groups:
        taken = {name.lower() for name, _ in found}
        found += [(name, value) for name, value in group if name.lower() not in taken]
    return tuple(found)


def authorization(url: httpx.URL) -> Headers:
    """The header for the name and password that stand in a URL."""
    if not url.userinfo:
        return ()
    return (("Authorization", Login(url.userinfo.decode("ascii")).authorization),)


def redirected(hop: Hop, answer: Answer) -> Hop:
    """Where an answer leads: without what is for the project's own server, where it is another one."""
    try:
        url = hop.url.join(answer.headers["location"]).copy_with(userinfo=b"", fragment=None)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise HttpFailure("it leads to what is no URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise HttpFailure("it leads to what is no http or https URL")
    if hop.url.scheme == "https" and url.scheme == "http":
        raise HttpFailure("it leads from https to http, where it is not followed")
    as_get = answer.status == 303 or (answer.status in (301, 302) and hop.method == "POST")
    method = "GET" if as_get and hop.method != "HEAD" else hop.method
    content = None if as_get else hop.content
    same = origin_of(url) == hop.origin or _is_upgrade(hop.origin, origin_of(url))
    kept = hop.headers if same else _public(hop.headers)
    if content is None:
        kept = tuple((name, value) for name, value in kept if name.lower() != "content-type")
    return Hop(method, url, kept, content)


def _is_upgrade(before: Origin, after: Origin) -> bool:
    return before == ("http", after[1], 80) and after == ("https", before[1], 443)


def _public(headers: Headers) -> Headers:
    """What may be told to a server that the project does not name."""
    return (*((name, value) for name, value in headers if name.lower() == "content-type"), *DEFAULTS)
