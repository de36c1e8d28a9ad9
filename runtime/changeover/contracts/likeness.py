"""Which of the new names one that is gone probably became. A guess for people: nothing is done because of it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher

ALIKE = 0.6


def likeness(old: str, new: str) -> float:
    """1.0 for the same letters, 0.0 for none in common; a name within the other one counts as alike."""
    if old in new or new in old:
        return max(0.8, SequenceMatcher(None, old, new).ratio())
    return SequenceMatcher(None, old.lower(), new.lower()).ratio()


def most_alike(old: str, candidates: Collection[str], *, fitting: Collection[str] = ()) -> str | None:
    """The candidate that `old` most likely became: one of a similar name, or the best of those that are of its kind."""
    ranked = sorted(candidates, key=lambda new: (new in fitting, likeness(old, new)), reverse=True)
    return next((new for new in ranked if new in fitting or likeness(old, new) >= ALIKE), None)
