"""The Python nodes of `helpdesk.yaml`: each takes the state and returns the keys that change."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.messages import AIMessage

from .types import DeskState, Ticket

# The first topic whose words occur wins; without one it is "other".
TOPICS = {
    "person": re.compile(r"(?i)\b(lawyer|legal|court|human|person)\b"),
    "billing": re.compile(r"(?i)\b(invoice|bill|charge)s?\b"),
}


def triage(state: DeskState) -> dict[str, Any]:
    """Decide what the customer's last message is about."""
    text = state["messages"][-1].text
    return {"topic": next((topic for topic, words in TOPICS.items() if words.search(text)), "other")}


def reply(state: DeskState) -> dict[str, Any]:
    """Pass on what a person answered, and keep it as a ticket."""
    answer = str(state["decision"])
    return {"messages": [AIMessage(answer)], "ticket": Ticket(topic=state["topic"], answer=answer)}
