"""Files that several tests of the build start from."""

from __future__ import annotations

from collections.abc import Callable

from changeover.build.parts import Parts

MODELS = """
models:
  demo:
    model: demo:rules
    params:
      rules:
        - {when: '(?i)talk to billing', call: transfer_to_billing}
        - {when: '(?i)refund (?P<amount>[0-9.]+).*?(?P<order_id>[A-Z]-[0-9]+)', call: refund}
        - {when: '(?i)(?P<order_id>[A-Z]-[0-9]+)', call: lookup_order}
        - {when: '(?i)ask billing: (?P<request>.*)', call: ask_billing}
"""

ORDERS = '''
def lookup_order(order_id: str) -> str:
    """Where an order is."""
    return f"{order_id} is on its way"

def refund(order_id: str, amount: float) -> str:
    """Give money back."""
    return f"{amount} refunded for {order_id}"
'''

Make = Callable[..., Parts]
