"""The shop's orders, and the tools that agents have for them.

The orders are a small file beside this one. A real desk would ask its shop here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ORDERS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "orders.json").read_text("utf-8"))


def orders_of(customer: str) -> list[str]:
    """Order numbers of a customer, oldest first."""
    return sorted(number for number, order in ORDERS.items() if order["customer"].lower() == customer.lower())


def lookup_order(order_id: str) -> str:
    """Say what is in an order and where it is now.

    Args:
        order_id: The order's number, such as A-1042.
    """
    order = _find(order_id)
    if order is None:
        return f"There is no order {order_id}."
    return f"Order {order_id.upper()} ({order['item']}) is {order['status']}; it is {order['where']}."


def refund(order_id: str, amount: float) -> str:
    """Pay money back for an order.

    Args:
        order_id: The order's number, such as A-1042.
        amount: How much to pay back, in euros.
    """
    order = _find(order_id)
    if order is None:
        return f"There is no order {order_id}."
    if not 0 < amount <= order["paid"]:
        return f"Order {order_id.upper()} cost {order['paid']:.2f}; {amount:.2f} cannot be refunded."
    return f"{amount:.2f} is on its way back for order {order_id.upper()}."


def list_invoices(order_id: str) -> str:
    """List the invoices of an order, one a line.

    Args:
        order_id: The order's number, such as A-1042.
    """
    order = _find(order_id)
    if order is None:
        return f"There is no order {order_id}."
    return "\n".join(
        f"{invoice['number']}: {invoice['amount']:.2f} for {invoice['what']}" for invoice in order["invoices"]
    )


def _find(order_id: str) -> dict[str, Any] | None:
    return ORDERS.get(order_id.strip().upper())
