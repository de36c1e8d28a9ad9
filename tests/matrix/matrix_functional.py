"""The functional API: an entrypoint that calls tasks, and waits in one or between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph.func import entrypoint, task
from langgraph.pregel import Pregel
from langgraph.types import interrupt
from matrix_world import World


@dataclass(frozen=True)
class Script:
    """`text` names the function that is the entrypoint."""

    text: str = "as_it_is"

    def given(self, do: str) -> dict[str, Any]:
        return {"do": do}


def graphs(script: Script, world: World) -> dict[str, Pregel[Any, Any, Any, Any]]:
    @task
    async def fetch(what: str) -> str:
        world.did("fetch")
        return f"fetched {what}"

    @task
    async def load(what: str) -> str:
        world.did("fetch")
        return f"fetched {what}"

    @task
    async def enrich(what: str) -> str:
        world.did("enrich")
        return f"rich {what}"

    @task
    async def confirm(what: str) -> str:
        answer = interrupt("task?")
        world.did("confirm")
        return f"{what} {answer}"

    @task
    async def approve(what: str) -> str:
        answer = interrupt("task?")
        world.did("confirm")
        return f"{what} {answer}"

    @task
    async def weigh(what: str) -> str:
        world.did("weigh")
        return f"weighed {what}"

    @task
    async def deliver(what: str) -> str:
        world.did("deliver")
        return f"delivered {what}"

    async def as_it_is(given: Any, *, previous: Any = None) -> Any:
        found = await fetch(given["do"])
        rich = await enrich(found)
        if given["do"] == "task":
            rich = await confirm(rich)
        if given["do"] == "between":
            rich = f"{rich} {interrupt('between?')}"
        done = await deliver(rich)
        return [*(previous or []), done]

    async def reworded(given: Any, *, previous: Any = None) -> Any:
        """The same calls; what is around them reads otherwise."""
        before = list(previous or [])
        found = await fetch(given["do"])
        rich = await enrich(found)
        if given["do"] == "task":
            rich = await confirm(rich)
        if given["do"] == "between":
            rich = f"{rich} {interrupt('between?')}"
        done = await deliver(rich)
        before.append(done)
        return before

    async def task_renamed(given: Any, *, previous: Any = None) -> Any:
        found = await load(given["do"])
        rich = await enrich(found)
        if given["do"] == "task":
            rich = await confirm(rich)
        if given["do"] == "between":
            rich = f"{rich} {interrupt('between?')}"
        done = await deliver(rich)
        return [*(previous or []), done]

    async def waiting_renamed(given: Any, *, previous: Any = None) -> Any:
        found = await fetch(given["do"])
        rich = await enrich(found)
        if given["do"] == "task":
            rich = await approve(rich)
        if given["do"] == "between":
            rich = f"{rich} {interrupt('between?')}"
        done = await deliver(rich)
        return [*(previous or []), done]

    async def inserted(given: Any, *, previous: Any = None) -> Any:
        found = await fetch(given["do"])
        heavy = await weigh(found)
        rich = await enrich(found)
        if given["do"] == "task":
            rich = await confirm(rich)
        if given["do"] == "between":
            rich = f"{rich} {interrupt('between?')}"
        done = await deliver(f"{rich} {heavy}")
        return [*(previous or []), done]

    async def swapped(given: Any, *, previous: Any = None) -> Any:
        rich = await enrich(given["do"])
        found = await fetch(rich)
        if given["do"] == "task":
            found = await confirm(found)
        if given["do"] == "between":
            found = f"{found} {interrupt('between?')}"
        done = await deliver(found)
        return [*(previous or []), done]

    async def added_after(given: Any, *, previous: Any = None) -> Any:
        found = await fetch(given["do"])
        rich = await enrich(found)
        if given["do"] == "task":
            rich = await confirm(rich)
        if given["do"] == "between":
            rich = f"{rich} {interrupt('between?')}"
        heavy = await weigh(rich)
        done = await deliver(heavy)
        return [*(previous or []), done]

    async def reordered_text(given: Any, *, previous: Any = None) -> Any:
        do = given["do"]
        found = await fetch(do)
        rich = await enrich(found)
        if do == "task":
            rich = await confirm(rich)
        if do == "between":
            rich = f"{rich} {interrupt('between?')}"
        done = await deliver(rich)
        return [*(previous or []), done]

    texts = (as_it_is, reworded, task_renamed, waiting_renamed, inserted, swapped, added_after, reordered_text)
    function = {text.__name__: text for text in texts}[script.text]
    function.__name__ = "script"
    return {"script": entrypoint()(function)}
