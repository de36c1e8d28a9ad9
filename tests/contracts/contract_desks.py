"""Graphs whose contracts the tests look at: every way in which a node can ask."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypedDict

from langchain_core.runnables import RunnableLambda
from langgraph import types
from langgraph.func import entrypoint, task
from langgraph.types import interrupt
from langgraph.types import interrupt as ask_them

QUESTION = "Refund it?"


class State(TypedDict, total=False):
    note: str


def helper(value: object) -> Any:
    return ask_them({"question": value})


def round_trip(count: int) -> Any:
    return round_trip(count - 1) if count else interrupt("at the end")


def approved(node: Callable[[State], Any]) -> Callable[[State], Any]:
    @functools.wraps(node)
    def wrapper(state: State) -> Any:
        interrupt("before")
        return node(state)

    return wrapper


def plain(state: State) -> State:
    return {"note": "none"}


def by_module(state: State) -> State:
    return {"note": types.interrupt('one')}  # fmt: skip


def in_order(state: State) -> State:
    first = interrupt("first")
    notes = [interrupt(f"each {part}") for part in interrupt("parts")]
    return {"note": helper([first, notes])}


def keyword(state: State) -> State:
    return {"note": interrupt(value=("k",))}


def nested(state: State) -> State:
    return {"note": interrupt(interrupt("inner"))}


def recursive(state: State) -> State:
    return {"note": round_trip(2)}


async def in_thread(state: State) -> State:
    return {"note": await asyncio.to_thread(helper, "thread")}


def imported_here(state: State) -> State:
    from langgraph.types import interrupt as later

    return {"note": later("here")}


def constant(state: State) -> State:
    return {"note": interrupt(QUESTION)}


def of_a_name(state: State) -> State:
    question = {"ask": "Sure?", "note": state["note"]}
    return {"note": interrupt(question)}


def shadowed(state: State) -> State:
    def interrupt(text: str) -> str:
        return text

    return {"note": interrupt("no question")}


def other_interrupt(state: State, timer: Any = None) -> State:
    if timer is not None:
        timer.interrupt()
    return {"note": "none"}


@approved
def decorated(state: State) -> State:
    return {"note": interrupt("inside")}


def with_argument(value: object, state: State) -> State:
    return {"note": helper(value)}


class Desk:
    def __init__(self, aliases: bool = False) -> None:
        self.aliases = aliases

    def __call__(self, state: State) -> State:
        return self.approve(state)

    def approve(self, state: State) -> State:
        return {"note": self.ask("desk")}

    @staticmethod
    def ask(text: str) -> Any:
        return interrupt({"desk": text})


def through_an_object(state: State) -> State:
    desk = Desk()
    return {"note": desk.ask("made here")}


class Careful(Desk):
    def approve(self, state: State) -> State:
        interrupt("careful")
        return super().approve(state)


class Team:
    question = "Who?"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def work(self, state: State) -> State:
        interrupt(self.question)
        return self.desk.approve(state)


STEPS = [in_order, by_module]
KINDS = {"one": by_module, "text": "two"}


def in_steps(state: State) -> State:
    for step in STEPS:
        state = step(state)
    return state


def by_kind(state: State) -> State:
    return KINDS[state["note"]](state)


def alias(state: State) -> State:
    ask = helper
    return {"note": ask("x")}


def through_partial(state: State) -> State:
    sure = functools.partial(interrupt, "Sure?")
    return {"note": sure()}


SURE = functools.partial(interrupt, "Sure?")


def through_global_partial(state: State) -> State:
    return {"note": SURE()}


def of_a_model(state: State) -> State:
    return {"note": interrupt({"draft": str(QUESTION), "why": QUESTION.upper()})}


def made(text: str) -> Callable[[State], State]:
    def node(state: State) -> State:
        return {"note": interrupt(text)}

    return node


async def given(state: State) -> State:
    return {"note": interrupt("async")}


NODES: dict[str, tuple[Any, list[str]]] = {
    "plain": (plain, []),
    "by_module": (by_module, ["'one'"]),
    "in_order": (
        in_order,
        ["'first'", "'parts'", "f'each {part}' where for part in interrupt('parts')", "{'question': value}"],
    ),
    "keyword": (keyword, ["value=('k',)"]),
    "nested": (nested, ["'inner'", "interrupt('inner')"]),
    "recursive": (recursive, ["'at the end' given 2"]),
    "in_thread": (in_thread, ["{'question': value}"]),
    "imported_here": (imported_here, ["'here'"]),
    "constant": (constant, ['QUESTION with QUESTION = "Refund it?"']),
    "of_a_name": (of_a_name, ["question with question = {'ask': 'Sure?', 'note': state['note']}"]),
    "shadowed": (shadowed, []),
    "other_interrupt": (other_interrupt, []),
    "decorated": (decorated, ["'before'", "'inside'"]),
    "partial": (functools.partial(with_argument, 1), ["{'question': value} given 1"]),
    "callable_object": (Desk(), ["{'desk': text} given 'desk'"]),
    "method": (Desk().approve, ["{'desk': text} given 'desk'"]),
    "through_an_object": (through_an_object, ["{'desk': text} given 'made here'"]),
    "super": (Careful(), ["'careful'", "{'desk': text} given 'desk'"]),
    "held_object": (Team(Desk()).work, ['self.question with self.question = "Who?"', "{'desk': text} given 'desk'"]),
    "in_steps": (
        in_steps,
        ["'first'", "'parts'", "f'each {part}' where for part in interrupt('parts')", "{'question': value}", "'one'"],
    ),
    "by_kind": (by_kind, ["'one'"]),
    "alias": (alias, ["{'question': value} given 'x'"]),
    "through_partial": (through_partial, ["'Sure?'"]),
    "through_global_partial": (through_global_partial, ['"Sure?"']),
    "of_a_model": (
        of_a_model,
        ["{'draft': str(QUESTION), 'why': QUESTION.upper()} with QUESTION = \"Refund it?\""],
    ),
    "made": (made("From outside?"), ['text with text = "From outside?"']),
    "lambda": (lambda state: {"note": interrupt("short")}, ["'short'"]),
    "runnable": (RunnableLambda(plain, afunc=given), ["'async'"]),
}


@task
def fetch(url: str) -> str:
    return url


@task(name="store_it")
def save(text: str) -> Any:
    return interrupt("Save?") or text


@entrypoint()
def flow(urls: list[str]) -> str:
    pages = [fetch(url).result() for url in urls]
    answer = interrupt({"pages": pages})

    @task
    def local(text: str) -> str:
        return text

    return f"{save(answer).result()} {local('x').result()}"


def with_tasks(state: State) -> State:
    interrupt("ready?")
    return {"note": fetch("url").result()}
