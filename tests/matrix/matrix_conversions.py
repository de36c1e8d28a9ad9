"""Functions that steps of the matrix name, as `matrix_conversions:name`."""

from __future__ import annotations

from typing import Any

from matrix_types import Case, Ticket, TicketWithOwner


def to_pairs(ticket: dict[str, Any]) -> list[list[Any]]:
    return [[key, value] for key, value in ticket.items()]


def from_pairs(pairs: list[list[Any]]) -> dict[str, Any]:
    return {str(key): value for key, value in pairs}


def to_words(results: list[int]) -> list[str]:
    return [str(result) for result in results]


def from_words(results: list[str]) -> list[int]:
    return [int(result) for result in results]


def to_part(argument: dict[str, Any]) -> dict[str, Any]:
    return {"part": argument["item"], "size": 1}


def from_part(argument: dict[str, Any]) -> dict[str, Any]:
    return {"item": argument["part"]}


def with_owner(ticket: Ticket) -> TicketWithOwner:
    return TicketWithOwner(number=ticket.number, owner="desk")


def without_owner(ticket: TicketWithOwner) -> Ticket:
    return Ticket(number=ticket.number)


def to_case(ticket: Ticket) -> Case:
    return Case(number=ticket.number)


def from_case(case: Case) -> Ticket:
    return Ticket(number=case.number)
