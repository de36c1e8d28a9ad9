"""The items of LangGraph's long-term memory, moved from the form of one version to that of another.

```
told = await items.move("helpdesk", v7, v8)    # after the threads
```
Items belong to no version: they are moved when it is asked for, once, and all versions read them as they are then. An
item that cannot be moved stays as it is and is told of; asked again, it has another turn. What was dropped is kept
beside the mark of the item, for the way back; so is what a newer version has set, for the way forward.

Invariant: an item, its vectors and the mark that it has come through a step change at once, or not at all.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langgraph.store.base import PutOp

from changeover.checkpoints.memory import Memory
from changeover.contracts.steps import down_of, is_builtin, up_of
from changeover.deadline import DeadlinePassed, run_in_thread
from changeover.errors import InvalidRequest
from changeover.migrations.mover import Movers
from changeover.migrations.reading import NotMovable
from changeover.migrations.rewriting import BUILTIN, Directed
from changeover.project.migration_models import StoreParts
from changeover.store.database import Database
from changeover.store.items import Became, DueItem, ItemRows, MovedItem, Pass, Vector
from changeover.store.records.ids import VersionId

log = logging.getLogger(__name__)

PAGE = 200
ATTEMPTS = 20  # pages in a row of which every item was changed by somebody else
LISTED = 100
Item = dict[str, Any]


class CannotMove(Exception):
    """The item stays as it is."""


@dataclass
class ItemsMoved:
    """Items by what became of them, counted once for each step. Of the failed ones the first are told."""

    moved: int = 0
    skipped: int = 0  # gone meanwhile, or over
    failed: int = 0
    reasons: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"moved": self.moved, "skipped": self.skipped, "failed": self.failed, "reasons": self.reasons}

    def add(self, other: ItemsMoved) -> None:
        self.moved += other.moved
        self.skipped += other.skipped
        self.failed += other.failed
        self.reasons = [*self.reasons, *other.reasons][:LISTED]

    def note(self, one: MovedItem, became: Became, step: str) -> None:
        if became == "moved":
            self.moved += 1
        elif became == "gone":
            self.skipped += 1
        elif became == "failed":
            self.failed += 1
            if len(self.reasons) < LISTED:
                told = {"namespace": one.item.prefix, "key": one.item.key, "step": step, "reason": one.reason}
                self.reasons.append(told)


class Items:
    """Moves items. `memory` is the store that graphs are given, in the same database."""

    def __init__(self, database: Database, memory: Any, movers: Movers) -> None:
        self._rows = ItemRows(database, time.time, has_index=bool(memory.index_config))
        self._memory = memory
        self._movers = movers
        self._is_sqlite = isinstance(memory, Memory)

    async def move(self, graph: str, own: VersionId, to: VersionId, *, dry_run: bool = False) -> ItemsMoved:
        """Move the items that the steps between two versions of a graph speak of. May be called again at any time.

        With `dry_run` they are counted alone. Raises `NotMovable` where there is no way, or a step does not end;
        what was moved until then has moved.
        """
        async with self._movers.between(graph, own, to) as mover:
            ways = [directed for directed in mover.moves if _concerns(directed.step.parts.store)]
            if not ways and mover.grading.blocked is not None:
                raise NotMovable(mover.grading.blocked.reason, hint=mover.grading.blocked.hint)
            told = ItemsMoved()
            for directed in ways:
                told.add(await self._through(directed, mover.timeout_s, dry_run=dry_run))
            return told

    async def _through(self, directed: Directed, timeout_s: float, *, dry_run: bool) -> ItemsMoved:
        """All items through one step, page by page."""
        step = directed.step
        prefix = ".".join(step.parts.store.namespace)
        way = Pass(step.graph, step.number, step.digest, prefix, directed.forward)
        told = ItemsMoved()
        if dry_run:
            told.moved = await self._rows.count(way)
            return told
        if not await self._rows.begin(way):
            return told
        fruitless, limit = 0, PAGE
        while due := await self._rows.due(way, limit):
            try:
                moved = await self._page(directed, due, timeout_s)
            except DeadlinePassed:
                limit = _smaller(len(due), step.title, timeout_s)
                continue
            became = await self._rows.settle(way, moved)
            for one, what in zip(moved, became, strict=True):
                told.note(one, what, step.title)
            fruitless = fruitless + 1 if set(became) == {"changed"} else 0
            if fruitless == ATTEMPTS:
                raise NotMovable("items of the long-term memory are written to all the time", code="items-busy")
        await self._rows.end(way)
        return told

    async def _page(self, directed: Directed, due: Sequence[DueItem], timeout_s: float) -> list[MovedItem]:
        work = partial(_changed, directed, due, self._demand_storable)
        return await self._embedded(await run_in_thread(work, timeout_s))

    # --- what the database takes -----------------------------------------------------------------

    def _demand_storable(self, value: Item) -> str:
        """The item as text. Raises `CannotMove` where LangGraph's store could not keep it."""
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            text.encode()
            _demand_small_numbers(value)
            if not self._is_sqlite:
                _demand_no_nul(value)
        except (TypeError, ValueError, RecursionError, InvalidRequest) as error:
            raise CannotMove(f"the store cannot keep what the step makes: {error}") from error
        return text

    async def _embedded(self, moved: Sequence[MovedItem]) -> list[MovedItem]:
        """With vectors of the new text, for items that have vectors."""
        wanted = [one for one in moved if one.item.has_vectors and one.text and one.text != one.item.text]
        if not wanted or not self._memory.index_config:
            return list(moved)
        puts = [
            (n, PutOp(tuple(one.item.prefix.split(".")), one.item.key, json.loads(one.text)))
            for n, one in enumerate(wanted)
        ]
        _, asked = self._memory._prepare_batch_PUT_queries(puts)
        texts = list(asked[1]) if asked else []
        try:
            made = await self._memory.embeddings.aembed_documents([text for *_, text in texts]) if texts else []
        except Exception as error:  # border: a model of the project's
            said = f"{type(error).__name__}: {error}"[:500]
            raise NotMovable(f"embeddings cannot be made: {said}", code="embedding-failed") from error
        vectors: dict[tuple[str, str], list[Vector]] = {(one.item.prefix, one.item.key): [] for one in wanted}
        for (prefix, key, name, _), numbers in zip(texts, made, strict=True):
            vectors[prefix, key].append(Vector(name, self._vector(numbers)))
        known = {id(one): vectors[one.item.prefix, one.item.key] for one in wanted}
        return [MovedItem(one.item, one.text, one.kept, one.reason, known.get(id(one))) for one in moved]

    def _vector(self, numbers: Sequence[float]) -> bytes | str:
        if self._is_sqlite:
            return array("f", numbers).tobytes()
        return f"[{','.join(repr(float(number)) for number in numbers)}]"


def _smaller(limit: int, title: str, timeout_s: float) -> int:
    """How many items to try at once after so many took too long. Raises `NotMovable` where one did."""
    if limit > 1:
        return max(1, limit // 8)
    raise NotMovable(
        f"{title} did not end within {timeout_s:g} s for an item of the long-term memory",
        code="step-timeout",
        hint="look for a loop or a wait in its code; the item is as it was",
    )


def _concerns(parts: StoreParts) -> bool:
    return bool(parts.rename or parts.drop or parts.set or parts.convert)


def _changed(directed: Directed, due: Sequence[DueItem], text_of: Callable[[Item], str]) -> list[MovedItem]:
    change = _Change(directed)
    return [_changed_one(change, item, text_of) for item in due]


def _changed_one(change: _Change, item: DueItem, text_of: Callable[[Item], str]) -> MovedItem:
    if not item.text:
        return MovedItem(item)
    try:
        if item.waits_for is not None:
            raise CannotMove(f"it has not come through step {item.waits_for:04} yet")
        value = json.loads(item.text)
        if not isinstance(value, dict):
            raise CannotMove("its value is no mapping")
        new, kept = change.of(value, _kept(item))
        text = item.text if new == value and _same_types(new, value) else text_of(new)
        json.dumps(kept)
        return MovedItem(item, text, {**kept, "made_at": item.made_at} if kept else None)
    except CannotMove as error:
        return MovedItem(item, reason=str(error)[:2000])
    except Exception as error:  # border: code of the project
        return MovedItem(item, reason=f"{type(error).__name__}: {error}"[:2000])


def _kept(item: DueItem) -> Mapping[str, Any] | None:
    """What the way before kept of this item, and not of one that had its name before."""
    kept = item.kept if isinstance(item.kept, dict) else None
    return kept if kept is not None and kept.get("made_at") == item.made_at else None


class _Change:
    """One step on the value of an item. `kept` is what the way before left: None for what never went it."""

    def __init__(self, directed: Directed) -> None:
        self._directed = directed
        self._parts = directed.step.parts.store

    def of(self, value: Item, kept: Mapping[str, Any] | None) -> tuple[Item, Item]:
        return self._forward(dict(value), kept or {}) if self._directed.forward else self._back(dict(value), kept)

    def _forward(self, item: Item, kept: Mapping[str, Any]) -> tuple[Item, Item]:
        parts = self._parts
        dropped = {name: item.pop(name) for name in parts.drop if name in item}
        own = [new for old, new in parts.rename.items() if new in item and old not in item]
        _rename(item, parts.rename)
        converted: Item = {}
        for name, conversion in parts.convert.items():
            if name in item:
                before = item[name]
                item[name] = _plain(self._function(up_of(conversion))(copy.deepcopy(before)))
                converted[name] = [before, item[name]]
        given = [name for name in parts.set if name not in item]
        removed: Mapping[str, Any] = kept.get("removed") or {}
        for name in given:
            item[name] = copy.deepcopy(removed.get(name, parts.set[name]))
        told = {"dropped": dropped, "own": own, "converted": converted, "given": given}
        return item, {name: what for name, what in told.items() if what} or {"moved": True}

    def _back(self, item: Item, kept: Mapping[str, Any] | None) -> tuple[Item, Item]:
        parts = self._parts
        given = parts.set if kept is None else kept.get("given") or ()
        removed = {name: item.pop(name) for name in given if name in item}
        known: Mapping[str, Any] = (kept or {}).get("converted") or {}
        for name, conversion in parts.convert.items():
            if name in item:
                item[name] = self._converted_back(name, item[name], down_of(conversion), known.get(name))
        own = (kept or {}).get("own") or ()
        _rename(item, {new: old for old, new in parts.rename.items() if new not in own})
        for name, value in ((kept or {}).get("dropped") or {}).items():
            item.setdefault(name, value)
        return item, {"removed": removed} if removed else {}

    def _converted_back(self, name: str, value: Any, down: str | None, known: Sequence[Any] | None) -> Any:
        if down is not None:
            return _plain(self._function(down)(copy.deepcopy(value)))
        if known is None:
            raise CannotMove(
                f"nobody knows what type '{name}' had before the step, since the item was written after it: give its"
                " conversion a 'down'"
            )
        before, after = known
        if value == after and type(value) is type(after):
            return before
        if type(before).__name__ not in BUILTIN:
            raise CannotMove(f"'{name}' was {json.dumps(before)} before the step, and is another by now")
        return _plain(BUILTIN[type(before).__name__](value))

    def _function(self, ref: str) -> Callable[[Any], Any]:
        return BUILTIN[ref] if is_builtin(ref) else self._directed.code.function(self._directed.step, ref)


def _rename(item: Item, names: Mapping[str, str]) -> None:
    """All at once, so that two fields may change their names with each other."""
    taken = {new: item.pop(old) for old, new in names.items() if old in item}
    for name in taken:
        if name in item:
            raise CannotMove(f"it has '{name}' already")
    item.update(taken)


def _plain(value: Any) -> Any:
    """A value as it comes back from the store."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise CannotMove(f"the store cannot keep what the step makes: {error}") from error


def _same_types(new: Any, old: Any) -> bool:
    """Equal values may differ in what they are: 1, 1.0 and True."""
    return json.dumps(new, sort_keys=True) == json.dumps(old, sort_keys=True)


def _demand_small_numbers(value: Any) -> None:
    """LangGraph's store reads no larger whole numbers."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise ValueError("a whole number has more than 64 bits")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _demand_small_numbers(inner)


def _demand_no_nul(value: Any) -> None:
    from changeover.checkpoints.postgres_memory import demand_no_nul  # its driver is an extra

    demand_no_nul(value)
