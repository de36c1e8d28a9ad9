"""Our own HTTP API as the pages call it: in process, with the rights of whoever opened the page.

Whoever may see a page may call every route, so that the calls carry the server's own token and the name of the person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.types import ASGIApp

ACTOR = "page"
BASE_URL = "http://127.0.0.1"

Json = dict[str, Any]


class Refused(Exception):
    """An answer that is a problem: its status and its document of RFC 9457."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(problem.get("detail", ""))
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        return str(self.problem.get("code", ""))


@dataclass(frozen=True, slots=True)
class Api:
    """`get` and `post` give the JSON of an answer, and raise `Refused`."""

    app: ASGIApp
    token: str | None
    actor: str = ACTOR

    def as_(self, actor: str) -> Api:
        return Api(self.app, self.token, actor or ACTOR)

    async def get(self, path: str, /, **query: Any) -> Any:
        """`query` without what is None or empty; `from_` is `from`."""
        return (await self.send("GET", path, query=query)).json()

    async def text(self, path: str, /, **query: Any) -> str:
        return (await self.send("GET", path, query=query)).text

    async def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        return (await self.send("POST", path, body=body, headers=headers)).json()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        given = {name.rstrip("_"): value for name, value in (query or {}).items() if value not in (None, "", [])}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL, timeout=None) as client:
            answer = await client.request(
                method,
                path,
                params=given,
                json=body,
                headers=httpx.Headers({**self._headers(), **(headers or {})}, encoding="utf-8"),
            )
        if answer.is_success:
            return answer
        raise Refused(answer.status_code, _problem(answer))

    def _headers(self) -> dict[str, str]:
        told = {"Changeover-Actor": self.actor}
        return {**told, "Authorization": f"Bearer {self.token}"} if self.token else told


async def together(*asked: Awaitable[Any]) -> list[Any]:
    """The answers to several questions, side by side; the first refusal where one is refused."""
    return list(await asyncio.gather(*asked))


def _problem(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": f"the server answered {answer.status_code}", "code": ""}
