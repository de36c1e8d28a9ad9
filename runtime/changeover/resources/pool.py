"""What is live in this process, and who uses it.

Owns which resources are open: one for each key, from its first user to its last. Users are compiled forms of versions
(`tenancy`). It does not know what a resource is.

Invariants: a resource is open exactly while it has a user, or is being closed; the same key is opened once, however
many ask for it at the same time; everything changes in the event loop, between two awaits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from changeover.errors import NotFound, ProjectError
from changeover.resources.keeper import Keeper, Tell
from changeover.resources.need import Key, Keys, Need
from changeover.resources.reconciling import Name
from changeover.resources.resource import Resource, ResourceDown
from changeover.store.records.times import timestamp

log = logging.getLogger(__name__)

FOR_CALLS = frozenset({"mcp"})  # kinds that nothing uses but calls of tools; code may use a plugin while it is built


class User:
    """Somebody who needs resources. `label` is what a person is shown: the id of a version."""

    def __init__(self, label: str) -> None:
        self.label = label


class Handle:
    """Where a tool finds its live thing when it is called: what is there then, not what was when it was built."""

    def __init__(self, pool: ResourcePool, key: Key, title: str) -> None:
        self._pool = pool
        self._key = key
        self._title = title

    def live(self) -> Resource:
        """Raises `ResourceDown`, at once, where it is not there."""
        keeper = self._pool.keeper(self._key)
        if keeper is None:
            raise ResourceDown(f"{self._title} is not open", hint="nothing that serves needs it")
        return keeper.live()

    async def ready(self, timeout_s: float) -> Resource:
        """As `live`; where it is being opened just now, that is waited for, for a time."""
        keeper = self._pool.keeper(self._key)
        if keeper is not None and keeper.status != "healthy":
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await keeper.settled()
        return self.live()

    def kept(self) -> Resource | None:
        """What is kept for this key, also where it is not well at the moment."""
        keeper = self._pool.keeper(self._key)
        return keeper.resource if keeper else None


class ResourcePool:
    """`take` and `give_back` what a user needs; `close` in the end."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.time) -> None:
        self.keys = Keys()
        self.opened: Counter[str] = Counter()  # by kind
        self.closed: Counter[str] = Counter()
        self._tell = tell
        self._clock = clock
        self._keepers: dict[Key, Keeper] = {}
        self._users: dict[Key, dict[User, Need]] = {}
        self._leaving: set[Keeper] = set()  # nobody needs them; they are being closed
        self._past: Counter[tuple[str, str]] = Counter()  # of those that are closed
        self._ending: set[asyncio.Task[None]] = set()

    def handle(self, need: Need) -> Handle:
        """May be called from any thread, before anything is open."""
        return Handle(self, need.key, need.title)

    def keeper(self, key: Key) -> Keeper | None:
        return self._keepers.get(key)

    def stopped(self, needs: Iterable[Need]) -> frozenset[Name]:
        """The names of those that were stopped by hand."""
        keepers = [(need, self._keepers.get(need.key)) for need in needs]
        return frozenset(
            (need.kind, need.name) for need, keeper in keepers if keeper is not None and keeper.status == "stopped"
        )

    async def take(
        self,
        user: User,
        needs: Iterable[Need],
        *,
        demand: bool = False,
        patience_s: float | None = None,
        stopped: Collection[Name] = (),
    ) -> None:
        """Have these for `user` besides what it has already; new ones are opened side by side.

        With `demand` what is required, and new, must open, else `ProjectError` says of each why not. What was open
        before is kept as it is, well or not: an edit is not to blame for it. Whatever is raised, `user` has them until
        it gives them back. Those of names that are `stopped` are not opened until somebody starts them. With
        `patience_s` what only calls use is waited for so long: it goes on opening, and calls wait for it by themselves.
        """
        wanted = list(needs)
        new = [need for need in wanted if need.key not in self._keepers]
        keepers = [self._taken(user, need, (need.kind, need.name) in stopped) for need in wanted]
        await asyncio.gather(*(_settled(keeper, patience_s) for keeper in keepers))
        if demand:
            self._demand([need for need in new if (need.kind, need.name) not in stopped])
        for need in new:
            keeper = self._keepers.get(need.key)
            if keeper is not None and keeper.status == "degraded":
                await keeper.tell_of_trouble()
            elif keeper is not None and keeper.status == "opening":
                keeper.is_awaited = False

    def give_back(self, user: User) -> None:
        """`user` needs nothing any more. What nobody needs is closed, in a task of its own."""
        for key, users in list(self._users.items()):
            users.pop(user, None)
            if not users:
                self._end(key)
            elif (keeper := self._keepers[key]).resource is None:  # it is made for one who is still there
                keeper.need = next(iter(users.values()))

    def held(self) -> set[Key]:
        return set(self._keepers)

    def names(self) -> Mapping[tuple[str, str], Key]:
        """What is open by kind and name; of several with one name the newest."""
        return {(keeper.need.kind, keeper.need.name): key for key, keeper in self._keepers.items()}

    async def stop(self, id_: str) -> None:
        """Close it until `start`; who needs it is told so. It goes on while it is being closed. Raises `NotFound`."""
        keeper = self.find(id_)
        keeper.stop()
        await self._tell("resource_stopped", {"kind": keeper.need.kind, "name": keeper.need.name})

    async def start(self, id_: str) -> None:
        """Open it anew, now, and wait until it is open or has failed to. Raises `NotFound`."""
        keeper = self.find(id_)
        keeper.restart()
        await self._tell("resource_started", {"kind": keeper.need.kind, "name": keeper.need.name})
        await keeper.settled()

    def counts(self) -> Counter[tuple[str, str]]:
        """`opens`, `closes`, `errors` and `restarts` by kind since this process began; they never go down."""
        counts = Counter(self._past)
        for keeper in (*self._keepers.values(), *self._leaving):
            counts.update(_counts(keeper))
        return counts

    async def close(self) -> None:
        for key in list(self._keepers):
            self._end(key)
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)

    # --- for people ------------------------------------------------------------------------------

    def report(self) -> list[dict[str, Any]]:
        """Everything that is live, by kind and name, the newest of a name first and under that name."""
        return [self._report(id_, keeper) for id_, keeper in sorted(self._by_id().items())]

    def degraded(self) -> list[str]:
        """The ids of those that should be well and are not."""
        return [id_ for id_, keeper in sorted(self._by_id().items()) if keeper.status == "degraded"]

    def find(self, id_: str) -> Keeper:
        """Raises `NotFound`."""
        found = self._by_id().get(id_)
        if found is None:
            raise NotFound(f"no resource '{id_[:255]}' is open", code="unknown-resource", hint="see /admin/resources")
        return found

    def one(self, id_: str) -> dict[str, Any]:
        return self._report(id_, self.find(id_))

    def _by_id(self) -> dict[str, Keeper]:
        """`kind:name` for the newest of a name, `kind:name@2` and so on for those that older versions still use."""
        found: dict[str, Keeper] = {}
        seen: Counter[str] = Counter()
        for keeper in reversed(self._keepers.values()):
            name = f"{keeper.need.kind}:{keeper.need.name}"
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name}@{seen[name]}"] = keeper
        return found

    def _report(self, id_: str, keeper: Keeper) -> dict[str, Any]:
        users = self._users.get(keeper.need.key, {})
        resource = keeper.resource
        return {
            "id": id_,
            "kind": keeper.need.kind,
            "name": keeper.need.name,
            "status": keeper.status,
            "reason": keeper.reason,
            "required": keeper.need.required,
            "uses": len(users),
            "versions": sorted({user.label for user in users}),
            "since": timestamp(keeper.since),
            "opened_at": timestamp(keeper.opened_at),
            "open_s": round(keeper.open_s, 4) if keeper.open_s is not None else None,
            "uptime_s": round(self._clock() - keeper.opened_at, 1)
            if keeper.opened_at is not None and keeper.status == "healthy"
            else None,
            "opens": keeper.opens,
            "restarts": max(0, keeper.opens - 1),
            "errors": keeper.errors,
            "last_error": keeper.last_error or None,
            "last_error_at": timestamp(keeper.last_error_at),
            "details": resource.details() if resource is not None else {},
        }

    # --- inside ----------------------------------------------------------------------------------

    def _taken(self, user: User, need: Need, is_stopped: bool) -> Keeper:
        keeper = self._keepers.get(need.key)
        if keeper is None:
            keeper = self._keepers[need.key] = Keeper(need, self._tell, self._clock)
            self._users[need.key] = {}
            self.opened[need.kind] += 1
            if is_stopped:
                keeper.stop()
            keeper.start()
        self._users[need.key].setdefault(user, need)
        return keeper

    def _demand(self, new: Sequence[Need]) -> None:
        failed = [
            need.problem(keeper.reason)
            for need in new
            if need.required and (keeper := self._keepers.get(need.key)) is not None and keeper.status != "healthy"
        ]
        if failed:
            raise ProjectError(sorted(failed, key=lambda problem: problem.sort_key))

    def _end(self, key: Key) -> None:
        keeper = self._keepers.pop(key)
        del self._users[key]
        self.closed[keeper.need.kind] += 1
        self._leaving.add(keeper)
        task = asyncio.create_task(self._ended(keeper), name="changeover-resource-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _ended(self, keeper: Keeper) -> None:
        try:
            await keeper.end()
        finally:
            self._leaving.discard(keeper)
            self._past.update(_counts(keeper))
            log.debug("resource_closed", extra={"resource": keeper.need.title})


def _counts(keeper: Keeper) -> dict[tuple[str, str], int]:
    kind = keeper.need.kind
    return {
        (kind, "opens"): keeper.opens,
        (kind, "closes"): keeper.closes,
        (kind, "errors"): keeper.errors,
        (kind, "restarts"): max(0, keeper.opens - 1),
    }


async def _settled(keeper: Keeper, patience_s: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s if keeper.need.kind in FOR_CALLS else None):
            await keeper.settled()
