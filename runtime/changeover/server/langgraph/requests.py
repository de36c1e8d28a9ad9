"""From the body of a request to the run that it asks for: its assistant, its thread, its checkpoint."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from starlette.datastructures import URL
from starlette.types import Scope

from changeover.errors import InvalidRequest, NotFound, Unavailable
from changeover.manager import GraphVersionManager
from changeover.runs.assistants import applied
from changeover.runs.kwargs import ALL_MODES, request_of
from changeover.runs.request import RunRequest
from changeover.server.langgraph.payloads import RunBody
from changeover.store.state_tags import ANY

TAG_LIMIT_CHARS = 100
TAGS_LIMIT = 20


def version_of(scope: Scope) -> str | None:
    """The version that a request asks to be served by."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"changeover-version"), None)


def seen_of(scope: Scope) -> list[str]:
    """What `If-Match` insists on: tags of a thread's state (`store.state_tags`), any of which will do.

    One that a proxy made weak when it compressed the answer is still the tag of that state.
    """
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"if-match"]
    parts = [stripped for value in given for part in value.split(",") if (stripped := part.strip())]
    tags = [part if part == ANY else part.removeprefix("W/").strip('"') for part in parts]
    quoted = any(
        tag == ANY != part for part, tag in zip(parts, tags, strict=True)
    )  # which is no state's, and not "any"
    fitting = all(0 < len(tag) <= TAG_LIMIT_CHARS for tag in tags) and len(tags) <= TAGS_LIMIT
    if quoted or not fitting or (given and not tags):
        raise InvalidRequest(
            "If-Match: it is no list of tags", code="bad-if-match", hint='send the ETag of the thread\'s state: "…"'
        )
    return tags


def address_of(scope: Scope) -> str:
    """This server's address as the client of a request knows it, without a slash at its end."""
    return str(URL(scope=scope).replace(path=scope.get("root_path", ""), query="")).rstrip("/")


async def run_request(
    manager: GraphVersionManager,
    body: RunBody,
    thread_id: str | None,
    version: str | None,
    *,
    background: bool = False,
    address: str = "",
    seen: Sequence[str] = (),
) -> RunRequest:
    """The run that a body asks for. `background`: nobody waits for it, so that it needs a thread to be found by.

    `seen`: tags of states of its thread, on which alone it may begin.
    """
    if manager.routing is None:
        raise Unavailable(
            "no version is current yet", code="nothing-current", hint="build the project and switch to it"
        )
    assistant = await manager.assistants.resolve(body.assistant_id)
    if body.webhook is not None:
        manager.addresses.check(body.webhook, "webhook")
    kwargs = body.kwargs(thread_id)
    if seen:
        if thread_id is None:
            raise InvalidRequest("If-Match: a run without a thread begins on no state", hint="name the thread")
        kwargs["if_match"] = list(seen)
    config, context, metadata = applied(assistant, kwargs.get("config"), kwargs.get("context"), body.metadata)
    kwargs["config"] = config
    if context is not None:
        kwargs["context"] = context
    if background and body.stream_mode is None:
        kwargs["stream_mode"] = list(ALL_MODES)
    if thread_id is not None and "checkpoint" in kwargs:
        await _must_exist(manager, thread_id, kwargs["checkpoint"])
    return request_of(
        kwargs,
        assistant.graph,
        address=address,
        version=version,
        metadata=metadata,
        assistant_id=assistant.id,
        multitask_strategy=body.multitask_strategy or "enqueue",
        begin_at=time.time() + body.after_seconds if body.after_seconds else None,
        **_thread(body, thread_id, background),
    )


def _thread(body: RunBody, thread_id: str | None, background: bool) -> dict[str, Any]:
    """The thread of a run; one without is on a thread of its own where somebody must find it by that, or keeps it."""
    if thread_id is not None:
        if body.on_completion == "delete":
            raise InvalidRequest(
                "on_completion: a run on a thread of the caller's does not delete it",
                code="unsupported",
                hint="leave it out, or run without a thread",
            )
        return {"thread_id": thread_id, "create_thread": body.if_not_exists == "create"}
    if body.command is not None:
        raise InvalidRequest("command: a run without a thread has nothing to go on with", hint="name the thread")
    if body.on_completion == "keep" or background:
        return {"thread_id": str(uuid.uuid4()), "temporary": body.on_completion != "keep"}
    return {"thread_id": None}


async def _must_exist(manager: GraphVersionManager, thread_id: str, checkpoint: dict[str, Any]) -> None:
    config: RunnableConfig = {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint.get("checkpoint_ns", ""),
            "checkpoint_id": checkpoint["checkpoint_id"],
        }
    }
    if await manager.saver.aget_tuple(config) is None:
        raise NotFound(
            f"there is no checkpoint '{checkpoint['checkpoint_id'][:100]}' on thread {thread_id}",
            code="unknown-checkpoint",
            hint="see /threads/{thread_id}/history",
        )
