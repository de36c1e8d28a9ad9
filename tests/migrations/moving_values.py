"""Classes of state whose objects are saved and moved, and what of two values must be equal."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from pydantic import BaseModel

RANDOM_ID = 36


class Person(BaseModel):
    name: str
    born: datetime | None = None


class Ticket(BaseModel):
    number: int
    owner: Person
    parts: list[Person] = []
    marks: dict[str, int] = {}


class Bill(BaseModel):
    """What `Ticket` is called where a step renames it."""

    number: int
    owner: Person
    parts: list[Person] = []
    marks: dict[str, int] = {}


@dataclasses.dataclass
class Place:
    street: str
    floors: list[int] = dataclasses.field(default_factory=list)
    keeper: Person | None = None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def wrap(value: Any) -> Any:
    return {"kept": value}


def unwrap(value: Any) -> Any:
    return value["kept"]


def same(value: Any) -> Any:
    """A value as what must be equal of it: types too, and sets whatever their order."""
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, sorted((same(one) for one in value), key=repr))
    if isinstance(value, Mapping):
        return {name: same(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [same(one) for one in value])
    if isinstance(value, BaseMessage):
        is_random = value.id is None or len(value.id) == RANDOM_ID
        return (type(value).__name__, value.model_dump_json(exclude={"id"} if is_random else None))
    return (f"{type(value).__module__}.{type(value).__qualname__}", repr(value))


texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
numbers = st.integers(-(2**40), 2**40)
times = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
people = st.builds(Person, name=texts, born=st.none() | times)
tickets = st.builds(
    Ticket,
    number=numbers,
    owner=people,
    parts=st.lists(people, max_size=2),
    marks=st.dictionaries(texts, numbers, max_size=2),
)
places = st.builds(Place, street=texts, floors=st.lists(numbers, max_size=2), keeper=st.none() | people)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.floats(allow_nan=False) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
contents = texts | st.lists(st.builds(lambda text: {"type": "text", "text": text}, texts), min_size=1, max_size=2)


@st.composite
def talks(draw: st.DrawFn) -> list[BaseMessage]:
    """A conversation as it is saved, with a call that was answered."""
    said: list[BaseMessage] = []
    for number in range(draw(st.integers(0, 2))):
        call = {
            "name": "refund",
            "args": {"amt": draw(numbers), "why": draw(texts)},
            "id": f"c{number}",
            "type": "tool_call",
        }
        said += [
            HumanMessage(draw(contents), id=f"h{number}"),
            AIMessage(draw(contents), tool_calls=[call], id=f"a{number}"),
            ToolMessage(draw(texts), tool_call_id=f"c{number}", id=f"t{number}"),
        ]
    return said


states = st.fixed_dictionaries(
    {
        "note": texts,
        "memo": texts,
        "count": numbers,
        "ticket": tickets,
        "place": places,
        "colour": st.sampled_from(Colour),
        "at": times,
        "tags": st.sets(texts, max_size=3),
        "raw": st.binary(max_size=6),
        "spare": plain,
        "messages": talks(),
    }
)
