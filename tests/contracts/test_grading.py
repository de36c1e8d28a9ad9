"""A thread's fate depends on what it waits for; when in doubt it stays, with a reason and the step to write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import version_pairs as pairs
from langgraph.func import entrypoint, task
from langgraph.types import interrupt
from version_pairs import ask, ask_before, ask_other, ask_twice, contract, graph, level, plain, state, waits

from changeover.contracts.grading import Grade, Grading, grade, grade_all
from changeover.contracts.waiting import WaitingSet, WaitingTask


def graded(old: Any, new: Any, *tasks: WaitingTask, **parts: Any) -> Grade:
    other = level("v2", contract(new), *([parts] if parts else []))
    return grade(level("v1", contract(old)), other, waits(*tasks) if tasks else None, "interrupt" if tasks else None)


def verdict(*given: Any, **parts: Any) -> str:
    return graded(*given, **parts).verdict


def asked(node: str, count: int = 1, **more: Any) -> WaitingTask:
    return WaitingTask(node, "interrupt", asked=count, **more)


def inside(node: str, *tasks: WaitingTask) -> WaitingTask:
    return WaitingTask(node, "interrupt", inner=WaitingSet.of(tasks))


def test_equal_contracts_are_compatible_as_they_are() -> None:
    assert graded(graph(ask=ask), graph(ask=ask), asked("ask")) == Grade(
        "compatible", "nothing that was saved has changed", None, False
    )


def test_a_node_that_is_gone_hurts_only_those_who_wait_in_it() -> None:
    old, new = graph(ask=ask, work=plain), graph(approve=ask, work=plain)
    assert graded(old, new) == Grade("compatible", "no step is needed", None, True)
    assert verdict(old, new, WaitingTask("work", "breakpoint")) == "compatible"
    stays = graded(old, new, asked("ask"))
    assert stays.verdict == "stays"
    assert stays.reason == "node 'ask' is gone; a thread that waits in it would end without the answer"
    assert stays.hint is not None
    assert "nodes.rename {ask: approve}" in stays.hint
    assert verdict(old, new, WaitingTask("ask", "failed")) == "stays"
    assert verdict(old, new, WaitingTask("ask", "finished")) == "stays"
    moved = graded(old, new, asked("ask"), nodes={"rename": {"ask": "approve"}})
    assert (moved.verdict, moved.rewrites) == ("migrates", True)


def test_what_finished_beside_may_not_lead_to_a_node_that_is_gone() -> None:
    old, new = graph(ask=ask, work=plain, after=plain), graph(ask=ask, work=plain)
    assert verdict(old, new, asked("ask"), WaitingTask("work", "finished", leads=("after",))) == "stays"
    assert verdict(old, new, asked("ask"), WaitingTask("work", "finished")) == "stays"
    assert verdict(old, new, asked("ask"), WaitingTask("work", "finished", leads=())) == "compatible"


def test_a_lost_key_hurts_every_thread() -> None:
    old, new = graph(schema=state(note=str), work=plain), graph(schema=state(notes=str), work=plain)
    assert verdict(old, new) == "stays"
    assert verdict(old, new, state={"rename": {"note": "notes"}}) == "migrates"


def test_a_key_of_a_subgraph_hurts_those_who_wait_inside() -> None:
    old = graph(desk=graph(schema=state(draft=str), ask=ask).compile(), work=plain)
    new = graph(desk=graph(schema=state(text=str), ask=ask).compile(), work=plain)
    assert verdict(old, new) == "compatible"
    assert verdict(old, new, WaitingTask("work", "breakpoint")) == "compatible"
    assert verdict(old, new, inside("desk", asked("ask"))) == "stays"
    assert verdict(old, new, inside("desk", asked("ask")), state={"rename": {"desk/draft": "text"}}) == "migrates"


def test_a_node_deep_inside_is_looked_up_by_its_path() -> None:
    def nested(name: str) -> Any:
        return graph(desk=graph(inner=graph(**{name: ask}).compile()).compile())

    where = inside("desk", inside("inner", asked("ask")))
    assert verdict(nested("ask"), nested("approve"), where) == "stays"
    assert (
        verdict(nested("ask"), nested("approve"), where, nodes={"rename": {"desk/inner/ask": "approve"}}) == "migrates"
    )


@pytest.mark.parametrize(
    ("new", "count", "expected"),
    [
        (ask_twice, 1, "compatible"),
        (ask_twice, 2, "stays"),
        (ask_before, 1, "stays"),
        (ask_other, 1, "stays"),
        (plain, 1, "stays"),
        (ask_other, 0, "compatible"),
    ],
)
def test_an_answer_goes_to_the_question_that_was_asked(new: Any, count: int, expected: str) -> None:
    task = WaitingTask("ask", "interrupt" if count else "breakpoint", asked=count)
    assert verdict(graph(ask=ask), graph(ask=new), task) == expected
    assert not graded(graph(ask=ask), graph(ask=new)).rewrites


def test_a_changed_question_moves_when_the_author_says_that_it_is_the_same() -> None:
    assert verdict(graph(ask=ask), graph(ask=ask_other), asked("ask"), interrupts={"same": ["ask"]}) == "migrates"


def at_join(*tasks: WaitingTask, gathered: Sequence[str] = ()) -> Any:
    return WaitingSet.of(tasks, {"join:a+b:c": gathered}).format()


JOINED = graph(a=plain, b=ask, c=plain, up=ask, joins=[(["a", "b"], "c")])


@pytest.mark.parametrize(
    ("new", "sources_matter"),
    [
        (graph(a=plain, b=ask, d=plain, c=plain, up=ask, joins=[(["a", "b", "d"], "c")]), True),
        (graph(x=plain, b=ask, c=plain, up=ask, joins=[(["x", "b"], "c")]), True),
        (graph(a=plain, b=ask, e=plain, up=ask, joins=[(["a", "b"], "e")]), False),
        (graph(b=ask, c=plain, up=ask, joins=[(["b"], "c")]), False),
    ],
)
def test_a_join_that_is_another_one_keeps_those_for_whom_it_has_gathered(new: Any, sources_matter: bool) -> None:
    own, other = level("v1", contract(JOINED)), level("v2", contract(new))
    assert verdict(JOINED, new) == "compatible"
    assert grade(own, other, at_join(asked("up")), "interrupt").verdict == "compatible"
    assert grade(own, other, at_join(asked("b"), gathered=["a"]), "interrupt").verdict == "stays"
    assert (
        grade(own, other, at_join(asked("b"), WaitingTask("a", "finished", leads=())), "interrupt").verdict == "stays"
    )
    beside = grade(own, other, at_join(asked("b")), "interrupt").verdict
    assert beside == ("stays" if sources_matter else "compatible")


def test_a_join_of_nodes_that_there_were_may_be_too_late() -> None:
    old, new = graph(a=plain, b=ask, c=plain), graph(a=plain, b=ask, c=plain, joins=[(["a", "b"], "c")])
    assert verdict(old, new) == "compatible"
    assert verdict(old, new, asked("b")) == "stays"


def test_sends_that_have_not_finished_lead_on_by_the_new_edges() -> None:
    old, new = graph(ask=ask, work=plain), graph(ask=ask, perform=plain)
    done = WaitingTask("ask", "finished", send=True, leads=("work",))
    assert verdict(old, new, done, asked("ask", send=True)) == "compatible"
    assert verdict(old, new, done) == "stays"


def test_a_function_that_became_a_graph_with_the_same_question_gets_the_first_answer() -> None:
    old = graph(ask=ask)
    assert verdict(old, graph(ask=graph(question=ask).compile()), asked("ask")) == "compatible"
    assert verdict(old, graph(ask=graph(question=ask).compile()), asked("ask", 2)) == "stays"
    assert verdict(old, graph(ask=graph(question=ask_other).compile()), asked("ask")) == "stays"


def test_a_node_that_a_step_removes_may_not_have_finished_beside_others() -> None:
    old, new = graph(ask=ask, work=plain, more=plain), graph(work=plain, more=plain)
    parts: Any = {"nodes": {"remove": {"ask": {"goto": "work"}}}}
    assert verdict(old, new, asked("ask"), **parts) == "migrates"
    assert verdict(old, new, WaitingTask("ask", "finished", leads=()), asked("work"), **parts) == "stays"


def test_a_deferred_node_and_a_removed_key_need_only_a_new_head() -> None:
    assert graded(graph(work=plain), graph(work=plain, defer="work"), WaitingTask("work", "breakpoint")).rewrites
    old = graph(schema=state(note=str, tmp=int), work=plain)
    found = graded(old, graph(schema=state(note=str), work=plain), WaitingTask("work", "breakpoint"))
    assert (found.verdict, found.rewrites) == ("compatible", True)


def call(node: str = "HumanInTheLoopMiddleware.after_model", **tools: tuple[str, ...]) -> WaitingTask:
    return WaitingTask(node, "interrupt", asked=1, tools=tools)


def desk(approve: Any = True, **arguments: Any) -> Any:
    return pairs.agent(pairs.refund_tool(**arguments), pairs.refund_tool("look"), approve={"refund": approve})


def test_a_call_that_waits_is_executed_as_it_was_approved_or_not_moved() -> None:
    old, new = desk(order=int), desk(order=int, to=(str, "all"))
    assert verdict(old, new) == "compatible"
    stays = graded(old, new, call(refund=("order",)))
    assert stays.verdict == "stays"
    assert "to='all', not approved" in stays.reason
    assert verdict(old, new, call(refund=("order", "to"))) == "compatible"
    assert verdict(old, new, call(look=("order",))) == "compatible"
    step = {"tools": {"arguments": {"refund": {"set": {"to": "desk"}}}}}
    assert verdict(old, new, call(refund=("order",)), **step) == "migrates"


def test_another_way_to_approve_concerns_the_calls_of_that_tool() -> None:
    old, new = desk(order=int), desk({"allowed_decisions": ["approve"]}, order=int)
    assert verdict(old, new, call(refund=("order",))) == "stays"
    assert verdict(old, new, call(look=("order",))) == "compatible"


@task
def fetch(value: int) -> int:
    return value


@task
def load(value: int) -> int:
    return value


def one_call(value: int) -> Any:
    return fetch(value).result(), interrupt("sure?"), fetch(3).result()


def flows() -> dict[str, Any]:
    def changed_after(value: int) -> Any:
        return fetch(value).result(), interrupt("sure?"), load(3).result()

    def swapped(value: int) -> Any:
        return load(3).result(), fetch(value).result(), interrupt("sure?")

    for function in (changed_after, swapped):
        function.__name__ = "one_call"
    return {"changed_after": entrypoint()(changed_after), "swapped": entrypoint()(swapped)}


def test_what_a_functional_graph_has_called_must_come_first_in_the_same_order() -> None:
    old, waiting = entrypoint()(one_call), asked("one_call", calls=1)
    assert verdict(old, flows()["changed_after"], waiting) == "compatible"
    assert verdict(old, flows()["changed_after"], asked("one_call", calls=2)) == "stays"
    assert verdict(old, flows()["swapped"], waiting) == "stays"
    assert verdict(old, flows()["swapped"], waiting, tasks={"same": True}) == "migrates"
    assert verdict(old, flows()["swapped"]) == "compatible"


def calls_a_task(given: Any) -> Any:
    return {"note": str(fetch(1).result()) + interrupt("first")}


def test_results_of_tasks_inside_a_node_move_with_it() -> None:
    old, new = graph(ask=calls_a_task), graph(ask=calls_a_task, more=plain)
    assert verdict(old, old, asked("ask", calls=1)) == "compatible"
    assert verdict(old, new, asked("ask", calls=1)) == "compatible"
    assert verdict(old, new, asked("ask")) == "compatible"
    renamed = graph(tell=calls_a_task)
    assert verdict(old, renamed, asked("ask", calls=1)) == "stays"
    assert verdict(old, renamed, asked("ask", calls=1), nodes={"rename": {"ask": "tell"}}) == "migrates"


def test_what_waits_in_a_graph_that_is_called_from_code_moves_as_in_any_other() -> None:
    def calling(inner: Any) -> Any:
        compiled = inner.compile()

        def desk(given: Any) -> Any:
            return compiled.invoke({})

        return desk

    old, same = graph(desk=calling(graph(ask=ask))), graph(desk=calling(graph(ask=ask)), more=plain)
    assert verdict(old, same, inside("desk", asked("ask"))) == "compatible"
    changed = graph(desk=calling(graph(ask=ask, more=plain)))
    assert verdict(old, changed, inside("desk", asked("ask"))) == "compatible"
    gone = graph(desk=calling(graph(tell=ask)))
    assert verdict(old, gone, inside("desk", asked("ask"))) == "stays"
    assert verdict(old, gone, inside("desk", asked("ask")), nodes={"rename": {"desk/ask": "tell"}}) == "migrates"


def test_nodes_that_steps_move_out_of_a_subgraph_may_leave_it_behind() -> None:
    old = graph(review=graph(ask=ask).compile(), work=plain)
    new = graph(ask=ask, work=plain)
    assert verdict(old, new, inside("review", asked("ask"))) == "stays"
    assert verdict(old, new, inside("review", asked("ask")), nodes={"move": {"review/ask": "ask"}}) == "migrates"


def test_a_thread_of_which_nothing_is_known_is_graded_as_if_it_waited_everywhere() -> None:
    own, other = level("v1", contract(graph(ask=ask))), level("v2", contract(graph(approve=ask)))
    found = grade(own, other, None, "interrupt")
    assert found.verdict == "stays"
    assert found.reason.startswith("it is not known what the thread waits for")
    assert grade(own, other, "{broken", "interrupt").verdict == "stays"
    assert grade(own, other, None, None).verdict == "compatible"
    assert grade(own, level("v2", contract(graph(ask=ask, more=plain))), None, "interrupt").verdict == "compatible"


def test_without_a_way_between_the_chains_every_thread_stays_and_is_told_why() -> None:
    made = contract(graph(ask=ask))
    own = level("v2", made, {"one_way": True, "state": {"drop": ["tmp"]}})
    grading = Grading(own, level("v1", made))
    found = grading.grade(None, None)
    assert found.verdict == "stays"
    assert "one-way" in found.reason
    assert grading.differences == []


def test_all_differences_are_told_the_worst_first() -> None:
    own = level("v1", contract(graph(schema=state(note=str), ask=ask)))
    other = level("v2", contract(graph(schema=state(note=str, more=int), approve=ask)))
    grades = [each.grade for each in grade_all(own, other)]
    assert grades == ["breaks", "safe", "safe"]


def wide(count: int, *, last: str = "ask") -> Any:
    """Sixty nodes, those of two levels of subgraphs included."""
    third = graph(**{f"n{index}": ask for index in range(count)}, **{last: ask}).compile()
    second = graph(**{f"n{index}": plain for index in range(count)}, inner=third).compile()
    return graph(**{f"n{index}": ask for index in range(count)}, desk=second)


def test_five_hundred_waiting_sets_are_graded_in_a_moment() -> None:
    own, other = level("v1", contract(wide(19))), level("v2", contract(wide(19, last="approve")))
    sets = []
    for number in range(500):
        first, second = asked(f"n{number % 19}"), WaitingTask(f"n{(number // 19) % 19}", "finished", leads=())
        deep = inside(
            "desk",
            inside("inner", asked(f"n{number % 19}"), asked("ask" if number % 5 == 0 else "n3", 1 + number // 19)),
        )
        sets.append(waits(first, second, *([deep] if number % 2 else [])))
    began = time.process_time()
    grading = Grading(own, other)
    verdicts = [grading.grade(each, "interrupt").verdict for each in sets]
    took_s = time.process_time() - began
    assert {"compatible", "stays"} == set(verdicts)
    assert took_s < 0.3, took_s
