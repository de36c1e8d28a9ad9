"""Feedback on runs: addresses that take an opinion from whoever has them, and what was said.

An address holds a secret and asks for no token (`security.FEEDBACK_PATH`): a page in a browser, or a link in a mail,
may use it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from changeover.errors import InvalidRequest, NotFound
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.langgraph.objects import storable
from changeover.server.langgraph.payloads import Strict
from changeover.server.problems import invalid
from changeover.store.feedback import Opinion

BODY_LIMIT_BYTES = 64_000
COMMENT_LIMIT = 10_000

Score = Annotated[float, Field(allow_inf_nan=False)]
Comment = Annotated[str, Field(max_length=COMMENT_LIMIT), AfterValidator(storable)]


class Said(Strict):
    """The body of an opinion. At least one of the three."""

    score: Score | bool | None = None
    value: Annotated[Any, AfterValidator(storable)] = None
    comment: Comment | None = None

    def opinion(self) -> Opinion:
        given = Opinion(None if self.score is None else float(self.score), self.value, self.comment)
        if given == Opinion():
            raise InvalidRequest("there is no opinion in it", hint="give score, value or comment")
        return given


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/runs/{run_id}/feedback", tags=["feedback"])

    @routes.get("")
    async def given(run_id: str) -> JSON:
        """What was said of a run, oldest first."""
        found = await manager.store.feedback.of_run(run_id)
        if found is None:
            raise NotFound(f"there is no run '{run_id[:255]}'", code="unknown-run")
        return JSON([feedback.to_json() for feedback in found])

    body = {"content": {"application/json": {"schema": Said.model_json_schema()}}, "required": True}

    @routes.post("/{token}", openapi_extra={"requestBody": body})
    async def give(run_id: str, token: str, request: Request) -> JSON:
        """Say it, in place of what was said here before."""
        return await _give(manager, run_id, token, _said(await _small_body(request)))

    @routes.get("/{token}")
    async def give_by_link(
        run_id: str,
        token: str,
        score: Annotated[Score | None, Query()] = None,
        value: Annotated[str | None, Query(max_length=COMMENT_LIMIT)] = None,
        comment: Annotated[str | None, Query(max_length=COMMENT_LIMIT)] = None,
    ) -> JSON:
        """The same for a plain link."""
        return await _give(manager, run_id, token, Said(score=score, value=value, comment=comment))

    return routes


async def _give(manager: GraphVersionManager, run_id: str, token: str, said: Said) -> JSON:
    return JSON((await manager.store.feedback.give(run_id, token, said.opinion())).to_json())


def _said(data: bytes) -> Said:
    try:
        return Said.model_validate_json(data)
    except ValidationError as error:
        raise invalid(list(error.errors(include_url=False, include_input=False, include_context=False))) from None


async def _small_body(request: Request) -> bytes:
    """The body, of a size that anybody may send."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"the request's body is larger than {BODY_LIMIT_BYTES} bytes")
    return bytes(body)
