"""Classes of state that a change changes. A class with a new name stands for the one that replaced it."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel


class Ticket(BaseModel):
    number: int


class Case(BaseModel):
    number: int


class TicketWithOwner(BaseModel):
    number: int
    owner: str


class Form(BaseModel):
    do: str = ""
    turns: int = 0
    note: str = ""
    said: str = ""
    ticket: Ticket | None = None


class FormWithOptional(Form):
    lang: str = "none"


class FormWithRequired(Form):
    lang: str


class FormOfWords(BaseModel):
    do: str = ""
    turns: str = "0"
    note: str = ""
    said: str = ""
    ticket: Ticket | None = None


class FormOfCase(BaseModel):
    do: str = ""
    turns: int = 0
    note: str = ""
    said: str = ""
    ticket: Case | None = None


class FormOfOwner(BaseModel):
    do: str = ""
    turns: int = 0
    note: str = ""
    said: str = ""
    ticket: TicketWithOwner | None = None


class FormOfRemark(BaseModel):
    do: str = ""
    turns: int = 0
    remark: str = ""
    said: str = ""
    ticket: Ticket | None = None


class FormWithoutNote(BaseModel):
    do: str = ""
    turns: int = 0
    said: str = ""
    ticket: Ticket | None = None


@dataclass
class Card:
    do: str = ""
    turns: int = 0
    note: str = ""
    said: str = ""
    ticket: Any = None


@dataclass
class CardWithOptional(Card):
    lang: str = "none"


@dataclass(kw_only=True)
class CardWithRequired(Card):
    lang: str


@dataclass
class CardOfRemark:
    do: str = ""
    turns: int = 0
    remark: str = ""
    said: str = ""
    ticket: Any = field(default=None)
