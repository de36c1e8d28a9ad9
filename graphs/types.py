"""What the nodes of the help desk share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from langchain_core.messages import AnyMessage


@dataclass
class Ticket:
    """What a person decided about a conversation."""

    topic: str
    answer: str


class DeskState(TypedDict):
    """The keys of `helpdesk.yaml`'s state, as its Python nodes see them."""

    messages: list[AnyMessage]
    topic: str
    decision: Any
    ticket: Ticket
