"""Kinds of change: what graph B has that graph A has not, and the step that covers it.

Expected is what graph B gives that runs the whole conversation itself, in plain LangGraph. Where that cannot be, the
kind says by hand what is: `expect` corrects the values, `unheard` names what is done on one side of the change only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import Any

import matrix_types as types
from matrix_conditions import AGENT, DESK, FUNCTIONAL, MEMORY, MODEL_CONDITIONS, Condition, Family
from matrix_models import Model, graphs

Step = Mapping[str, Any]
Values = Any


# conditions in which a thread waits for what is changed; those of TELLING are asked of every kind
TOUCHED = {
    "send_argument_renamed": ("sends_half_done",),
    "reducer_removed": ("breakpoint_after",),
    "keys_exchanged": (
        "forked",
        "in_subgraph",
    ),
    "reducer_key_renamed": (
        "failed",
        "sends_half_done",
        "asked_in_parallel",
    ),
    "question_added_after": (
        "asked_twice",
        "forked",
    ),
    "question_replaced": ("forked",),
    "question_inserted_before": (
        "forked",
        "asked_twice",
    ),
    "keys_of_finished_branches_renamed": (
        "sends_half_done",
        "failed",
    ),
    "every_key_renamed": (
        "failed",
        "sends_half_done",
        "in_subgraph",
        "in_nested_subgraph",
    ),
    "key_dropped": ("breakpoint_after",),
    "reducer_key_converted": ("sends_half_done",),
    "inner_key_renamed": (
        "in_subgraph",
        "in_nested_subgraph",
    ),
    "nested_keys_renamed": ("in_nested_subgraph",),
    "node_renamed": (
        "breakpoint_after",
        "sends_half_done",
    ),
    "asking_twice_node_renamed": ("asked_twice",),
    "every_node_renamed": (
        "asked_twice",
        "asked_in_parallel",
        "breakpoint_after",
        "failed",
        "sends_half_done",
        "in_subgraph",
        "in_nested_subgraph",
        "forked",
    ),
    "branch_renamed": (
        "asked_in_parallel",
        "failed",
    ),
    "finished_branch_renamed": (
        "asked_in_parallel",
        "failed",
    ),
    "branches_exchanged": (
        "asked_in_parallel",
        "failed",
    ),
    "joined_node_renamed": (
        "asked_in_parallel",
        "failed",
    ),
    "goto_target_renamed": (
        "asked_in_parallel",
        "failed",
        "forked",
    ),
    "send_target_renamed": ("sends_half_done",),
    "send_argument_changed": ("sends_half_done",),
    "subgraph_renamed": (
        "in_subgraph",
        "in_nested_subgraph",
    ),
    "outer_subgraph_renamed": ("in_nested_subgraph",),
    "nested_subgraph_renamed": ("in_nested_subgraph",),
    "inner_node_renamed": ("in_subgraph",),
    "nested_node_renamed": ("in_nested_subgraph",),
    "branch_removed": (
        "asked_in_parallel",
        "failed",
    ),
    "node_split": (
        "breakpoint_after",
        "sends_half_done",
    ),
    "node_moved_deeper": ("in_subgraph",),
    "subgraph_inlined": ("in_subgraph",),
    "node_and_keys_changed": ("breakpoint_after",),
    "inner_question_reworded": ("in_subgraph",),
    "asking_node_renamed": ("forked",),
    "asking_node_removed": ("forked",),
    "node_moved_into_subgraph": ("forked",),
    "node_becomes_subgraph": ("forked",),
    "question_reworded": ("forked",),
    "key_renamed": (
        "forked",
        "failed",
    ),
    "asking_node_split": ("forked",),
    "entry_renamed": (
        "forked",
        "sends_half_done",
    ),
    "question_removed": ("forked",),
    "words_changed": (
        "breakpoint_after",
        "sends_half_done",
        "in_nested_subgraph",
    ),
    "questions_exchanged": ("asked_twice",),
    "work_becomes_subgraph": (
        "breakpoint_after",
        "sends_half_done",
    ),
    "defer_removed": ("breakpoint_after",),
    "joined_node_deferred": (
        "asked_in_parallel",
        "failed",
    ),
    "breakpoint_added": (
        "breakpoint_after",
        "failed",
    ),
    "context_added": ("in_subgraph",),
    "retry_added": ("breakpoint_after",),
    "key_converted_by_function": (
        "sends_half_done",
        "in_nested_subgraph",
    ),
    "input_key_renamed": (
        "sends_half_done",
        "in_subgraph",
    ),
    "key_renamed_twice": ("breakpoint_after",),
    "reducer_added": ("breakpoint_after",),
    "unreached_node_removed": ("failed",),
}
TELLING = ("finished", "asked", "half_answered", "breakpoint_before")


def as_is(value: Any) -> Any:
    return value


def same(condition: str, when: str, values: Values) -> Values:
    return values


@dataclass(frozen=True)
class Kind:
    """`change` makes B's description of A's. `chain` is what covers it: a step, several, or none where none can.

    `meaning`: the change may alter what a waiting question means. No contract shows whether it does, so that without
    a word of the author such a thread stays, even where LangGraph would have gone on as meant.
    """

    name: str
    family: Family
    change: Callable[[Any], Any]
    chain: tuple[Step, ...] = ()
    before: Callable[[Any], Any] = as_is
    only: tuple[str, ...] = ()  # conditions that it is tried in, where it is not all of them
    lucky: tuple[str, ...] = ()  # conditions in which plain LangGraph is right by chance, and the thread stays
    is_local: bool = False  # tried only in the conditions that tell something of it
    expect: Callable[[str, str, Values], Values] = same  # condition, `middle` or `end`, values
    unheard: tuple[str, ...] = ()
    scratch: Callable[[Any], Any] = as_is
    meaning: bool = False
    bare: bool = True  # whether the change is also tried without its step
    no_way_back: tuple[str, ...] = ()  # conditions whose thread cannot be what it was
    own: tuple[str, ...] = ()  # keys that each version gives values of its own
    defaulted: tuple[str, ...] = ()  # keys that may be in the state with their default, or not

    @property
    def conditions(self) -> tuple[Condition, ...]:
        if self.only:
            return tuple(one for one in self.family.conditions if one.name in self.only)
        return self.telling_conditions if self.is_local else self.family.conditions

    @property
    def bare_conditions(self) -> tuple[Condition, ...]:
        """All where no step can help, else those that tell something."""
        if not self.bare:
            return ()
        return self.telling_conditions if self.chain else self.conditions

    @property
    def telling_conditions(self) -> tuple[Condition, ...]:
        telling = {*TELLING, *TOUCHED.get(self.name, ())}
        tried = self.family.conditions
        if self.family is DESK:
            tried = tuple(one for one in tried if one.name in telling)
        return tuple(one for one in tried if not self.only or one.name in self.only)

    @property
    def returning_conditions(self) -> tuple[Condition, ...]:
        """Those from which there is a way back."""
        telling = {"finished", "asked", *TOUCHED.get(self.name, ())} - set(self.no_way_back)
        tried = (one for one in self.telling_conditions if self.family is not DESK or one.name in telling)
        return tuple(one for one in tried if one.name not in self.no_way_back)

    @property
    def old(self) -> Any:
        return self.before(self.family.spec)

    @property
    def new(self) -> Any:
        return self.change(self.old)


def nodes(**parts: Any) -> tuple[Step, ...]:
    return ({"nodes": parts},)


def state(**parts: Any) -> tuple[Step, ...]:
    return ({"state": parts},)


def desk(name: str, change: Callable[[Any], Any], *chain: Step, **more: Any) -> Kind:
    return Kind(name, DESK, change, chain, **more)


ROLES = ("intake", "ask", "asks", "left", "right", "extra", "meet", "worker", "sub", "outer", "work", "close")
INNER = {"sub/draft": "draft", "sub/confirm": "confirm", "outer/enter": "enter", "outer/deep": "deep"}
DEEP = {"outer/deep/think": "think", "outer/deep/check_deep": "check_deep"}
KEYS = ("note", "memo", "log", "count", "ticket", "asked", "told", "side", "results", "said", "worked", "seen", "marks")


def again(role: str) -> str:
    return f"{role}_again"


def asked_on_a(condition: str, when: str, values: Values) -> Values:
    """A turn that ended on A was asked what A asks."""
    return {**values, "asked": "note ask: yes"} if condition == "finished" else values


def tone_of_a(condition: str, when: str, values: Values) -> Values:
    """What was done on A before the pause is in the tone of A."""
    is_done = condition in ("finished", "breakpoint_after", "memory_finished")
    return {**values, "tone": "cold"} if is_done and when == "middle" else values


def on_a(condition: str, when: str, values: Values) -> Values:
    """The turns that were finished before the change did what A does."""
    turns = 2 if condition == "functional_finished" else 1
    return ["delivered rich fetched plain"] * turns + values[turns:]


def in_english(condition: str, when: str, values: Values) -> Values:
    """The key is set where the thread has none, and read by the turns that end on B."""
    titled = condition != "finished" or when == "end"
    return {**values, "lang": "en", **({"title": "#1 en"} if titled else {})}


KEY_KINDS = (
    desk("key_renamed", lambda a: a.keyed(note="notes"), *state(rename={"note": "notes"})),
    desk("reducer_key_renamed", lambda a: a.keyed(log="story"), *state(rename={"log": "story"}), is_local=True),
    desk(
        "keys_of_finished_branches_renamed",
        lambda a: a.keyed(side="aside", results="outcomes"),
        *state(rename={"side": "aside", "results": "outcomes"}),
        is_local=True,
    ),
    desk(
        "keys_exchanged",
        lambda a: a.keyed(note="memo", memo="note"),
        *state(rename={"note": "memo", "memo": "note"}),
        bare=False,
        is_local=True,
    ),
    desk(
        "every_key_renamed",
        lambda a: a.keyed(**{k: again(k) for k in KEYS}),
        *state(
            rename={
                **{k: again(k) for k in KEYS},
                "sub/said": "said_again",
                "outer/said": "said_again",
                "outer/deep/said": "said_again",
            }
        ),
    ),
    desk("input_key_renamed", lambda a: a.keyed(do="task"), *state(rename={"do": "task"}), is_local=True),
    desk(
        "key_renamed_twice",
        lambda a: a.keyed(note="remark"),
        {"state": {"rename": {"note": "notes"}}},
        {"state": {"rename": {"notes": "remark"}}},
        is_local=True,
    ),
    desk("key_dropped", lambda a: a.without("tmp"), *state(drop=["tmp"]), before=lambda a: a.having("tmp")),
    desk("key_added", lambda a: a.having("lang")),
    desk(
        "key_set",
        lambda a: a.having("lang"),
        *state(set={"lang": "en"}),
        bare=False,
        expect=in_english,
        own=("title",),
    ),
    desk("key_converted", lambda a: a.having("words"), *state(convert={"count": "str"})),
    desk(
        "key_converted_by_function",
        lambda a: a.having("pairs"),
        *state(convert={"ticket": {"up": "matrix_conversions:to_pairs", "down": "matrix_conversions:from_pairs"}}),
        is_local=True,
    ),
    desk(
        "reducer_key_converted",
        lambda a: a.having("result_words"),
        *state(convert={"results": {"up": "matrix_conversions:to_words", "down": "matrix_conversions:from_words"}}),
        is_local=True,
    ),
    desk("reducer_added", lambda a: a.having("seen_adds"), *state(convert={"seen": "list"}), is_local=True),
    desk(
        "reducer_removed",
        lambda a: a.having("marks_last"),
        *state(convert={"marks": "list"}),
        meaning=True,
        is_local=True,
    ),
    desk("inner_key_renamed", lambda a: a.keyed(draft="text"), *state(rename={"sub/draft": "text"}), is_local=True),
    desk(
        "nested_keys_renamed",
        lambda a: a.keyed(plan="scheme", idea="thought"),
        *state(rename={"outer/plan": "scheme", "outer/deep/plan": "scheme", "outer/deep/idea": "thought"}),
        is_local=True,
    ),
)

NODE_KINDS = (
    desk(
        "node_renamed",
        lambda a: a.renamed(work="perform"),
        *nodes(rename={"work": "perform"}),
        lucky=("sends_half_done",),
    ),
    desk("asking_node_renamed", lambda a: a.renamed(ask="approve"), *nodes(rename={"ask": "approve"})),
    desk("asking_twice_node_renamed", lambda a: a.renamed(asks="poll"), *nodes(rename={"asks": "poll"}), is_local=True),
    desk("entry_renamed", lambda a: a.renamed(intake="welcome"), *nodes(rename={"intake": "welcome"}), is_local=True),
    desk(
        "every_node_renamed",
        lambda a: a.renamed(**{role: again(role) for role in (*ROLES, *INNER.values(), *DEEP.values())}),
        *nodes(rename={**{r: again(r) for r in ROLES}, **{p: again(r) for p, r in {**INNER, **DEEP}.items()}}),
    ),
    desk("branch_renamed", lambda a: a.renamed(left="lane"), *nodes(rename={"left": "lane"})),
    desk(
        "finished_branch_renamed",
        lambda a: a.renamed(right="side_way"),
        *nodes(rename={"right": "side_way"}),
        is_local=True,
    ),
    desk(
        "branches_exchanged",
        lambda a: a.renamed(left="right", right="left"),
        *nodes(rename={"left": "right", "right": "left"}),
        bare=False,
        own=("log",),
        is_local=True,
    ),
    desk("joined_node_renamed", lambda a: a.renamed(meet="gather"), *nodes(rename={"meet": "gather"}), is_local=True),
    desk("goto_target_renamed", lambda a: a.renamed(extra="bonus"), *nodes(rename={"extra": "bonus"}), is_local=True),
    desk("send_target_renamed", lambda a: a.renamed(worker="laborer"), *nodes(rename={"worker": "laborer"})),
    desk(
        "send_argument_changed",
        lambda a: a.having("part"),
        {
            "sends": {
                "convert": {"worker": {"up": "matrix_conversions:to_part", "down": "matrix_conversions:from_part"}}
            }
        },
        bare=False,
        is_local=True,
    ),
    desk(
        "send_argument_renamed",
        lambda a: a.having("part"),
        {"sends": {"convert": {"worker": {"rename": {"item": "part"}, "set": {"size": 1}}}}},
        bare=False,
        is_local=True,
    ),
    desk("subgraph_renamed", lambda a: a.renamed(sub="drafting"), *nodes(rename={"sub": "drafting"}), is_local=True),
    desk(
        "outer_subgraph_renamed", lambda a: a.renamed(outer="frame"), *nodes(rename={"outer": "frame"}), is_local=True
    ),
    desk(
        "nested_subgraph_renamed",
        lambda a: a.renamed(deep="depth"),
        *nodes(rename={"outer/deep": "depth"}),
        is_local=True,
    ),
    desk(
        "inner_node_renamed",
        lambda a: a.renamed(confirm="verify"),
        *nodes(rename={"sub/confirm": "verify"}),
        is_local=True,
    ),
    desk(
        "nested_node_renamed",
        lambda a: a.renamed(check_deep="probe"),
        *nodes(rename={"outer/deep/check_deep": "probe"}),
        is_local=True,
    ),
    desk(
        "asking_node_removed",
        lambda a: a.having("no_ask"),
        *nodes(remove={"ask": {"goto": "work"}}),
        unheard=("ask",),
        expect=asked_on_a,
        own=("asked",),
        no_way_back=("asked", "forked"),
        is_local=True,
    ),
    desk(
        "branch_removed",
        lambda a: a.having("no_right"),
        *nodes(remove={"right": {"goto": "__end__"}}),
        lucky=("asked_in_parallel",),
        no_way_back=("asked_in_parallel",),
        only=("finished", "asked", "asked_in_parallel", "breakpoint_before", "sends_half_done", "in_subgraph"),
    ),
    desk(
        "unreached_node_removed",
        lambda a: a.without("idle"),
        *nodes(remove={"idle": {"goto": "__end__"}}),
        before=lambda a: a.having("idle"),
        is_local=True,
    ),
    desk(
        "node_split",
        lambda a: a.having("split_work"),
        *nodes(split={"work": {"into": ["prepare", "work"], "at": "prepare"}}),
        unheard=("passed",),
    ),
    desk(
        "asking_node_split",
        lambda a: a.having("split_ask"),
        *nodes(split={"ask": {"into": ["collect", "ask"], "at": "ask"}}),
        unheard=("passed",),
        is_local=True,
    ),
    desk("node_moved_into_subgraph", lambda a: a.having("review"), *nodes(move={"ask": "review/ask"})),
    desk(
        "node_becomes_subgraph", lambda a: a.having("ask_subgraph"), *nodes(move={"ask": "ask/question"}), is_local=True
    ),
    desk(
        "node_moved_deeper", lambda a: a.having("gate"), *nodes(move={"sub/confirm": "sub/gate/confirm"}), is_local=True
    ),
    desk(
        "subgraph_inlined",
        lambda a: a.having("inlined"),
        *nodes(move={"sub/draft": "draft", "sub/confirm": "confirm"}),
    ),
    desk("node_inserted_before", lambda a: a.having("check"), unheard=("passed",)),
    desk("node_added_after", lambda a: a.having("audit"), unheard=("passed",)),
    desk("node_added_unreached", lambda a: a.having("idle"), is_local=True),
    desk(
        "branch_added",
        lambda a: a.having("middle"),
        only=("finished", "asked", "asked_in_parallel", "half_answered", "failed", "in_subgraph"),
        unheard=("middle",),
    ),
    desk("defer_added", lambda a: a.having("defer_close")),
    desk("defer_removed", lambda a: a.without("defer_close"), before=lambda a: a.having("defer_close"), is_local=True),
    desk("joined_node_deferred", lambda a: a.having("defer_meet"), is_local=True),
    desk("retry_added", lambda a: a.having("retry"), is_local=True),
    desk("work_becomes_subgraph", lambda a: a.having("work_subgraph"), is_local=True),
    desk("words_changed", lambda a: a.having("warm"), expect=tone_of_a, is_local=True),
    desk("context_added", lambda a: a.having("context"), is_local=True),
    desk("breakpoint_added", lambda a: a.having("stop_at_close"), is_local=True),
    desk(
        "breakpoints_removed",
        lambda a: a.having("no_stops"),
        only=("finished", "breakpoint_before", "breakpoint_after", "asked"),
    ),
    desk(
        "node_and_keys_changed",
        lambda a: a.renamed(ask="approve", work="perform").keyed(note="notes").having("words").without("tmp"),
        {"nodes": {"rename": {"ask": "approve", "work": "perform"}}},
        {"state": {"rename": {"note": "notes"}, "drop": ["tmp"], "convert": {"count": "str"}}},
        before=lambda a: a.having("tmp"),
    ),
)

QUESTION_KINDS = (
    desk(
        "question_reworded",
        lambda a: a.having("ask_reworded"),
        {"interrupts": {"same": ["ask"]}},
        meaning=True,
        is_local=True,
    ),
    desk(
        "inner_question_reworded",
        lambda a: a.having("confirm_reworded"),
        {"interrupts": {"same": ["sub/confirm"]}},
        meaning=True,
        is_local=True,
    ),
    desk(
        "question_inserted_before",
        lambda a: a.having("ask_after_another"),
        expect=asked_on_a,
        meaning=True,
        is_local=True,
    ),
    desk("question_added_after", lambda a: a.having("third"), meaning=True, is_local=True),
    desk("questions_exchanged", lambda a: a.having("swapped"), meaning=True, is_local=True),
    desk("question_replaced", lambda a: a.having("ask_something_else"), expect=asked_on_a, meaning=True, is_local=True),
    desk("question_removed", lambda a: a.having("ask_nobody"), expect=asked_on_a, meaning=True, is_local=True),
)


def agent(name: str, change: Callable[[Any], Any], *chain: Step, **more: Any) -> Kind:
    return Kind(name, AGENT, change, chain, **more)


APPROVAL = "HumanInTheLoopMiddleware.after_model"
AGENT_KINDS = (
    agent(
        "tool_renamed",
        lambda a: replaced(a, pay="pay_back"),
        {"tools": {"rename": {"refund": "pay_back"}}},
        own=("messages",),
    ),
    agent(
        "tool_argument_renamed",
        lambda a: replaced(a, amount="amount"),
        {"tools": {"arguments": {"refund": {"rename": {"amt": "amount"}}}}},
        own=("messages",),
    ),
    agent(
        "tool_and_argument_renamed",
        lambda a: replaced(a, pay="pay_back", amount="amount"),
        {"tools": {"rename": {"refund": "pay_back"}, "arguments": {"pay_back": {"rename": {"amt": "amount"}}}}},
        own=("messages",),
    ),
    agent(
        "tool_argument_replaced",
        lambda a: a.having("desk"),
        {"tools": {"arguments": {"refund": {"drop": ["note"], "set": {"to": "desk"}}}}},
        own=("messages",),
        no_way_back=("agent_approval", "agent_two_approvals", "agent_calls_queued", "agent_inside_a_graph"),
    ),
    agent("tool_argument_retyped", lambda a: a.having("words")),
    agent(
        "tool_removed",
        lambda a: a.having("no_refund"),
        only=("agent_finished", "agent_approval", "agent_tool_asks"),
        meaning=True,
    ),
    agent("tool_added", lambda a: a.having("more")),
    agent("approval_removed", lambda a: a.having("trusting")),
    agent(
        "approval_renamed",
        lambda a: a.having("approval"),
        {"nodes": {"rename": {APPROVAL: "Approval.after_model", f"agent/{APPROVAL}": "Approval.after_model"}}},
        only=("agent_approval", "agent_two_approvals", "agent_inside_a_graph"),  # in the others nothing is approved
    ),
    agent("middleware_added", lambda a: a.having("remember")),
    agent("prompt_changed", lambda a: a.having("kinder")),
    agent("agent_key_added", lambda a: a.having("mood")),
    agent(
        "agent_node_renamed",
        lambda a: replaced(a, name="clerk"),
        {"nodes": {"rename": {"agent": "clerk"}}},
        only=("agent_inside_a_graph",),
    ),
)


def script(name: str, text: str, *chain: Step, **more: Any) -> Kind:
    return Kind(name, FUNCTIONAL, lambda a: replaced(a, text=text), chain, **more)


FUNCTIONAL_KINDS = (
    script("function_reworded", "reworded"),
    script("task_renamed", "task_renamed", {"tasks": {"rename": {"fetch": "load"}}}),
    script("waiting_task_renamed", "waiting_renamed", {"tasks": {"rename": {"confirm": "approve"}}}, meaning=True),
    script("call_inserted", "inserted", expect=on_a, unheard=("weigh",)),
    script("calls_exchanged", "swapped", expect=on_a),
    script("call_added_after", "added_after", {"tasks": {"same": True}}, expect=on_a, unheard=("weigh",), own=("*",)),
    script("arguments_reworded", "reordered_text", {"tasks": {"same": True}}, meaning=True),
)


def model_family(name: str, spec: Model) -> Family:
    return Family(name, graphs, spec, MODEL_CONDITIONS)


PYDANTIC = model_family("pydantic", Model(types.Form))
DATACLASS = model_family("dataclass", Model(types.Card))
OWNER = {"up": "matrix_conversions:with_owner", "down": "matrix_conversions:without_owner"}


def pydantic(name: str, change: Callable[[Any], Any], *chain: Step, **more: Any) -> Kind:
    return Kind(name, PYDANTIC, change, chain, **more)


def dataclass_(name: str, change: Callable[[Any], Any], *chain: Step, **more: Any) -> Kind:
    return Kind(name, DATACLASS, change, chain, **more)


MODEL_KINDS = (
    pydantic("model_optional_field_added", lambda a: a.of(types.FormWithOptional), defaulted=("lang",)),
    pydantic(
        "model_required_field_added",
        lambda a: a.of(types.FormWithRequired),
        *state(set={"lang": "en", "sub/lang": "en"}),
        scratch=lambda a: replaced(a, first={"lang": "en"}),
    ),
    pydantic(
        "model_field_renamed",
        lambda a: a.of(types.FormOfRemark, note="remark"),
        *state(rename={"note": "remark", "sub/note": "remark"}),
    ),
    pydantic(
        "model_field_dropped",
        lambda a: a.of(types.FormWithoutNote),
        *state(drop=["note", "sub/note"]),
        before=lambda a: replaced(a, has=frozenset({"quiet"})),
    ),
    pydantic(
        "model_field_retyped",
        lambda a: a.of(types.FormOfWords, has=frozenset({"words"})),
        *state(convert={"turns": "str", "sub/turns": "str"}),
    ),
    pydantic(
        "class_renamed",
        lambda a: a.of(types.FormOfCase, ticket=types.Case),
        {"types": {"rename": {"matrix_types:Ticket": "matrix_types:Case"}}},
    ),
    pydantic(
        "class_converted",
        lambda a: a.of(types.FormOfOwner, ticket=types.TicketWithOwner, has=frozenset({"owner"})),
        *state(convert={"ticket": OWNER, "sub/ticket": OWNER}),
    ),
    dataclass_("dataclass_optional_field_added", lambda a: a.of(types.CardWithOptional), defaulted=("lang",)),
    dataclass_(
        "dataclass_required_field_added",
        lambda a: a.of(types.CardWithRequired),
        *state(set={"lang": "en", "sub/lang": "en"}),
        scratch=lambda a: replaced(a, first={"lang": "en"}),
    ),
    dataclass_(
        "dataclass_field_renamed",
        lambda a: a.of(types.CardOfRemark, note="remark"),
        *state(rename={"note": "remark", "sub/note": "remark"}),
    ),
)


def memory(name: str, change: Callable[[Any], Any], *chain: Step, **more: Any) -> Kind:
    return Kind(name, MEMORY, change, chain, **more)


MEMORY_KINDS = (
    memory("memory_renamed", lambda a: replaced(a, sub="mind"), *nodes(rename={"sub": "mind"})),
    memory("memory_node_renamed", lambda a: replaced(a, tell="speak"), *nodes(rename={"sub/tell": "speak"})),
    memory("memory_key_renamed", lambda a: replaced(a, told="known"), *state(rename={"sub/told": "known"})),
    memory(
        "memory_key_dropped",
        lambda a: replaced(a, has=frozenset()),
        *state(drop=["sub/tmp"]),
        before=lambda a: a.having("tmp"),
    ),
    memory("memory_words_changed", lambda a: a.having("warm"), expect=tone_of_a),
)
KINDS = (
    *KEY_KINDS,
    *NODE_KINDS,
    *QUESTION_KINDS,
    *AGENT_KINDS,
    *FUNCTIONAL_KINDS,
    *MODEL_KINDS,
    *MEMORY_KINDS,
)
