"""Questions and calls: what they stand in, what makes their words, what they are given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from langgraph.func import entrypoint, task
from langgraph.graph import StateGraph
from langgraph.types import Command, interrupt
from strange_desks import Strange, keys, line

ONE: tuple[Command[Any]] = (Command(resume="<a>"),)


def under_a_condition() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        said = []
        if state["x"] > 5:
            said.append(interrupt("a"))
        said.append(interrupt("b"))
        return {"log": said}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        said = []
        if state["x"] > 10:
            said.append(interrupt("a"))
        said.append(interrupt("b"))
        return {"log": said}

    return Strange(line(keys(x=int), ask=older), line(keys(x=int), ask=newer), {"log": [], "x": 7}, ONE)


def behind_an_early_end() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        if state["x"] < 5:
            return {}
        return {"log": [interrupt("a"), interrupt("b")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        if state["x"] < 9:
            return {}
        return {"log": [interrupt("a"), interrupt("b")]}

    return Strange(line(keys(x=int), ask=older), line(keys(x=int), ask=newer), {"log": [], "x": 7}, ONE)


def in_a_loop() -> Strange:
    def made(questions: list[str]) -> StateGraph[Any]:
        def ask(state: dict[str, Any]) -> dict[str, Any]:
            said = []
            for question in questions:
                said.append(interrupt(question))
            return {"log": said}

        return line(keys(), ask=ask)

    return Strange(made(["a", "b", "c"]), made(["a", "c"]), told=ONE)


def in_a_comprehension() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [interrupt(question) for question in ("a", "b", "c")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [interrupt(question) for question in ("a", "c")]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer), told=ONE)


def calls_under_a_condition() -> Strange:
    @task
    async def first() -> str:
        return "first"

    @task
    async def second() -> str:
        return "second"

    def older() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            said = []
            if given["x"] > 5:
                said.append(await first())
            said.append(await second())
            return [*said, interrupt("well?")]

        return entrypoint()(flow)

    def newer() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            said = []
            if given["x"] > 10:
                said.append(await first())
            said.append(await second())
            return [*said, interrupt("well?")]

        return entrypoint()(flow)

    return Strange(older(), newer(), {"x": 7})


def calls_in_a_loop() -> Strange:
    @task
    async def work(number: int) -> str:
        return f"work {number}"

    def made(numbers: list[int]) -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            said = []
            for number in numbers:
                said.append(await work(number))
            return [*said, interrupt("well?")]

        return entrypoint()(flow)

    return Strange(made([1, 2, 3]), made([2, 3]), {"x": 7})


def worded_by_a_helper() -> Strange:
    def age() -> str:
        return "age?"

    def name() -> str:
        return "name?"

    def made(text: Callable[[], str]) -> StateGraph[Any]:
        def ask(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [interrupt(text())]}

        return line(keys(), ask=ask)

    return Strange(made(age), made(name))


def helper(words: str) -> Any:
    return interrupt(words + "?")


def asked_by_a_helper() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [helper("a"), helper("b")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [helper("b"), helper("a")]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer))


class Desk:
    def ask(self, *, words: str) -> Any:
        return interrupt({"words": words})


def asked_by_a_method() -> Strange:
    desk = Desk()

    def older(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [desk.ask(words="a"), desk.ask(words="b")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [desk.ask(words="a"), desk.ask(words="c")]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer), told=ONE)


def in_a_case() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        match state["x"]:
            case 7:
                return {"log": [interrupt("a"), interrupt("b")]}
        return {"log": [interrupt("c")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        match state["x"]:
            case 8:
                return {"log": [interrupt("a"), interrupt("b")]}
        return {"log": [interrupt("c")]}

    return Strange(line(keys(x=int), ask=older), line(keys(x=int), ask=newer), {"log": [], "x": 7}, ONE)


def in_a_list_that_grows() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        questions = ["a"]
        questions.append("b")
        return {"log": [interrupt(question) for question in questions]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        questions = ["a"]
        questions.append("c")
        return {"log": [interrupt(question) for question in questions]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer), told=ONE)


def with_other_work_around() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        first = interrupt("a")
        second = interrupt("b")
        return {"log": [first, second]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        """Says it louder."""
        said = [interrupt("a"), interrupt("b")]
        return {"log": [answer.upper() for answer in said]}

    return Strange(line(keys(), ask=older), line(keys(note=str), ask=newer), told=ONE)


def given_to_a_partial() -> Strange:
    def ask(state: dict[str, Any], question: str = "none") -> dict[str, Any]:
        return {"log": [interrupt(question)]}

    def made(question: str) -> StateGraph[Any]:
        return line(keys(), ask=functools.partial(ask, question=question))

    return Strange(made("a"), made("b"))


def called_within_a_call(*, same: bool) -> Strange:
    ran: list[str] = []

    @task
    async def leaf(number: int) -> str:
        ran.append(f"leaf {number}")
        return f"leaf {number}"

    @task
    async def middle() -> list[str]:
        return [await leaf(1), await leaf(2), interrupt("well?")]

    @task
    async def late() -> str:
        return "late"

    def older() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            return [*await middle()]

        return entrypoint()(flow)

    def newer() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            return [*await middle(), await late()]

        return entrypoint()(flow)

    steps = [{"graph": "g", "tasks": {"same": True}}] if same else []
    return Strange(older(), newer(), {"x": 1}, steps=steps, ran=ran)
