"""`demo:rules`: what a stand-in for a real model must do like one."""

from __future__ import annotations

import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from changeover.resources.demo import DemoRules


@tool
def refund(order_id: str, amount: float, urgent: bool = False, lines: int = 0) -> str:
    """Give money back."""
    return "done"


RULES = [{"when": r"refund (?P<amount>\d+) for (?P<order_id>[A-Z]-\d+)( lines (?P<lines>\d+))?", "call": "refund"}]


def test_groups_become_the_types_of_the_tool() -> None:
    answer = DemoRules(rules=RULES).bind_tools([refund]).invoke("please refund 12 for A-7 lines 3")
    assert answer.tool_calls[0]["args"] == {"order_id": "A-7", "amount": 12.0, "lines": 3}
    assert isinstance(answer.tool_calls[0]["args"]["amount"], float)


def test_call_ids_are_the_same_each_time_and_differ_within_a_conversation() -> None:
    model = DemoRules(rules=RULES).bind_tools([refund])
    first = model.invoke("refund 1 for A-1").tool_calls[0]["id"]
    later = [HumanMessage("refund 1 for A-1"), AIMessage("ok"), HumanMessage("refund 1 for A-1")]
    assert model.invoke("refund 1 for A-1").tool_calls[0]["id"] == first
    assert model.invoke(later).tool_calls[0]["id"] != first


def test_after_the_result_it_answers_with_the_result_and_the_first_line_of_the_prompt() -> None:
    call = AIMessage("", tool_calls=[{"name": "refund", "args": {}, "id": "c1"}])
    messages = [
        SystemMessage("\nBe kind.\nAnd more."),
        HumanMessage("refund 1 for A-1"),
        call,
        ToolMessage("12 sent", tool_call_id="c1", name="refund"),
    ]
    answer = DemoRules(rules=RULES).bind_tools([refund]).invoke(messages)
    assert not answer.tool_calls
    assert "12 sent" in answer.text
    assert "Be kind." in answer.text
    assert "And more" not in answer.text
    assert answer.text.endswith("(demo)")


def test_no_rule_is_an_answer_in_words() -> None:
    assert DemoRules(rules=RULES).bind_tools([refund]).invoke("hello").text == 'You said: "hello". (demo)'


def test_a_rule_for_a_tool_that_is_not_there_says_so() -> None:
    assert "refund" in (text := DemoRules(rules=RULES).invoke("refund 1 for A-1").text)
    assert text.endswith("(demo)")


def test_after_a_handoff_the_next_matching_rule_may_speak() -> None:
    rules = [{"when": "refund", "call": "transfer_to_billing"}, *RULES]
    call = AIMessage("", tool_calls=[{"name": "transfer_to_billing", "args": {}, "id": "c1"}])
    done = ToolMessage("went on", tool_call_id="c1", name="transfer_to_billing")
    answer = DemoRules(rules=rules).bind_tools([refund]).invoke([HumanMessage("refund 1 for A-1"), call, done])
    assert [each["name"] for each in answer.tool_calls] == ["refund"]


@pytest.mark.parametrize("chunk", [None, 1, 4])
async def test_chunks_share_an_id_and_add_up(chunk: int | None) -> None:
    model = DemoRules(rules=RULES, chunk=chunk).bind_tools([refund])
    for question in ("say something long  here", "refund 1 for A-1"):
        pieces = [piece async for piece in model.astream(question)]
        assert len({piece.id for piece in pieces}) == 1
        assert [piece.chunk_position for piece in pieces][-1] == "last"
        total = pieces[0]
        for piece in pieces[1:]:
            total = total + piece
        whole = model.invoke(question)
        assert (total.content, total.usage_metadata) == (whole.content, whole.usage_metadata)
        assert [call["args"] for call in total.tool_calls] == [call["args"] for call in whole.tool_calls]


def test_structured_answers_are_filled_from_the_conversation() -> None:
    class Inner(BaseModel):
        ok: bool

    class Ticket(BaseModel):
        title: str
        count: int
        inner: Inner
        note: str | None = None

    ticket = DemoRules().with_structured_output(Ticket).invoke("I have 3 boxes")
    assert isinstance(ticket, Ticket)
    assert (ticket.count, ticket.inner.ok, ticket.note) == (3, False, None)
    assert "3 boxes" in ticket.title


@pytest.mark.parametrize(("given", "seconds"), [("2s", 2.0), ("200ms", 0.2), (1.5, 1.5), ("3", 3.0)])
def test_latency_is_read(given: object, seconds: float) -> None:
    assert DemoRules(latency=given).latency == seconds


def test_latency_slows_an_answer_down() -> None:
    started = time.monotonic()
    DemoRules(latency="50ms").invoke("hi")
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("params", [{"rules": [{"when": "(", "call": "x"}]}, {"latency": "soon"}, {"colour": "red"}])
def test_wrong_params_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DemoRules(**params)


def test_tools_of_other_formats_can_be_bound() -> None:
    anthropic = {"name": "refund", "description": "d", "input_schema": {"type": "object", "properties": {}}}
    search = {"type": "web_search_20250305", "name": "web_search"}
    answer = DemoRules(rules=RULES).bind_tools([anthropic, search]).invoke("refund 1 for A-1")
    assert answer.tool_calls[0]["name"] == "refund"
