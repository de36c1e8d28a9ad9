"""Environments of projects: which set of requirements is installed where, and who in this process uses it.

Owns the folders below `.changeover/environments`, their places at the end of `sys.path`, and the rule that one process
has one release of a package. What the server itself has comes first on the path and in every decision.

Invariants: a folder is on the path while a version uses it, and as long as the process lives once something was
imported from it; what would contradict a folder on the path never gets there. `.pth` files in it are not run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from changeover.build import search_path
from changeover.build.install_problems import conflict, not_installed
from changeover.build.installing import InstallFailed, Order, Place, install, modules_differ
from changeover.errors import ProjectError
from changeover.project import installed
from changeover.project.check import analyse
from changeover.project.document import read
from changeover.project.installed import MARK, lack_of
from changeover.project.langgraph import LANGGRAPH_FILE, read_langgraph
from changeover.project.problems import Problem
from changeover.project.requirements import requirements_of

log = logging.getLogger(__name__)

KEEP_S = 30 * 86400.0
PARTIAL_KEEP_S = 86400.0
LOCK_POLL_S = 0.1
LOCK_GRACE_S = 10.0

HeldBy = Callable[["Environment"], Sequence[str]]


class Environment:
    """An environment on the path of this process. `uses` is counted by `Environments`."""

    def __init__(self, owner: Environments, digest: str, place: Place) -> None:
        self.digest = digest
        self.place = place
        self.uses = 0
        self._owner = owner

    def take(self) -> None:
        """One more use of an environment that has some."""
        self._owner.take(self)

    def release(self) -> None:
        self._owner.release(self)


class Environments:
    """The environments of a process. `rule` is the setting `requirements`; only with `install` there are any."""

    def __init__(self, folder: Path, own: Path, *, rule: str, timeout_s: float) -> None:
        """`own` is a folder of this process, which says to others what is in use; it lies in one beside theirs."""
        self.rule = rule
        self._folder = folder
        self._own = own
        self._timeout_s = timeout_s
        self._open: dict[str, Environment] = {}
        self._lock = threading.Lock()
        self._packages: tuple[object, Mapping[str, installed.Package]] = (None, {})

    @asynccontextmanager
    async def of(
        self, files: Mapping[str, bytes], environment: Mapping[str, str], held_by: HeldBy = lambda _: ()
    ) -> AsyncIterator[Environment | None]:
        """One use of what the project in `files` needs, on the path; None where the server has all of it.

        Installs what is missing. Raises `ProjectError` if that cannot be, or contradicts what the process uses;
        `held_by` names the versions that use an environment. Files that are wrong in any other way give None: the check
        says so.
        """
        found = await self._acquire(files, environment, held_by) if self.rule == "install" else None
        try:
            yield found
        finally:
            if found is not None:
                found.release()

    def take(self, environment: Environment) -> None:
        with self._lock:
            environment.uses += 1

    def release(self, environment: Environment) -> None:
        with self._lock:
            environment.uses -= 1
            if not environment.uses and search_path.leave(environment.place.folder):
                self._open.pop(environment.digest, None)
                (self._own / environment.digest).unlink(missing_ok=True)

    # --- inside ----------------------------------------------------------------------------------

    async def _acquire(
        self, files: Mapping[str, bytes], variables: Mapping[str, str], held_by: HeldBy
    ) -> Environment | None:
        order = await asyncio.to_thread(self._order, files)
        if not order.wanted:
            return None
        known = self._known(order.digest)
        if known is not None:
            return known
        try:
            return await self._shared(order, files, variables, held_by)
        except OSError as error:
            raise ProjectError([not_installed(order, str(error))]) from None

    async def _shared(
        self, order: Order, files: Mapping[str, bytes], variables: Mapping[str, str], held_by: HeldBy
    ) -> Environment | None:
        """What the processes of this folder share: made by the first of them that asks."""
        async with _locked(self._lock_file(order.digest), self._timeout_s + LOCK_GRACE_S, order):
            folder = self._folder / order.digest
            place = await asyncio.to_thread(Place.read, folder)
            if place is None:
                _, problems = await asyncio.to_thread(analyse, files, variables, self.rule)
                if any(problem.severity == "error" for problem in problems):
                    return None
                place = await self._made(order, folder)
            await asyncio.to_thread(self._mark_used, order.digest)
            return self._entered(order, place, held_by)

    def _order(self, files: Mapping[str, bytes]) -> Order:
        listed = LANGGRAPH_FILE in files
        langgraph = read_langgraph(read(LANGGRAPH_FILE, files[LANGGRAPH_FILE])) if listed else None
        wanted = requirements_of(files, langgraph).wanted
        lacking = tuple(one for one in wanted if one.requirement.url is None and lack_of(one.requirement))
        return Order(lacking, self._own_packages() if lacking else {})

    def _own_packages(self) -> Mapping[str, installed.Package]:
        stamp = installed.stamp()
        if self._packages[0] != stamp:
            self._packages = (stamp, installed.packages())
        return self._packages[1]

    def _known(self, digest: str) -> Environment | None:
        with self._lock:
            found = self._open.get(digest)
            if found is not None:
                found.uses += 1
            return found

    async def _made(self, order: Order, folder: Path) -> Place:
        log.info("requirements_installing", extra={"environment": order.digest, "requirements": order.lines})
        began = time.monotonic()
        await asyncio.to_thread(self._collect, order.digest)
        try:
            place = await install(order, folder, search_path.held(), self._timeout_s)
        except InstallFailed as error:
            log.warning("requirements_not_installed", extra={"environment": order.digest, "reason": str(error)})
            raise ProjectError([not_installed(order, str(error))]) from None
        took_s = round(time.monotonic() - began, 2)
        packages = [f"{name}=={release}" for name, release in place.packages.items()]
        log.info("requirements_installed", extra={"environment": order.digest, "packages": packages, "took_s": took_s})
        return place

    def _mark_used(self, digest: str) -> None:
        """For `_collect`, of this process and of others."""
        self._own.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder / digest / MARK)

    def _entered(self, order: Order, place: Place, held_by: HeldBy) -> Environment:
        with self._lock:
            known = self._open.get(order.digest)
            if known is not None:
                known.uses += 1
                return known
            problems = list(self._conflicts(order, place, held_by))
            if problems:
                raise ProjectError(problems)
            environment = Environment(self, order.digest, place)
            environment.uses = 1
            (self._own / order.digest).touch()
            self._open[order.digest] = environment
            search_path.enter(place.folder)
            return environment

    def _conflicts(self, order: Order, place: Place, held_by: HeldBy) -> Iterator[Problem]:
        for other in search_path.on_path():
            if other.folder == place.folder:
                continue
            who = self._who(other, held_by)
            for name, release in place.packages.items():
                held = other.packages.get(name, release)
                if held != release:
                    said = f"needs {name} {release}, and {who} in this process has {name} {held}"
                    yield conflict(order, place, name, said, f"ask for {name}=={held}")
            for module in modules_differ(place.modules, other.modules):
                owner = place.modules[module] or f"a part of '{module}'"
                theirs = other.modules[module] or "a part of it from elsewhere"
                said = f"brings the module '{module}' with {owner}, and {who} in this process has {theirs}"
                yield conflict(order, place, place.modules[module], said, "leave one of them out")

    def _who(self, place: Place, held_by: HeldBy) -> str:
        user = next((one for one in self._open.values() if one.place.folder == place.folder), None)
        versions = list(held_by(user)) if user is not None else []
        return " and ".join(versions[:5]) or "what was imported before"

    def _collect(self, digest: str) -> None:
        """Remove what nobody uses and nobody has asked for in a long time, and what was left half made."""
        now = time.time()
        for entry in self._folder.iterdir() if self._folder.is_dir() else ():
            if entry.name.endswith(".partial"):
                if entry.name.startswith(digest) or now - _changed(entry) > PARTIAL_KEEP_S:
                    shutil.rmtree(entry, ignore_errors=True)
            elif (entry / MARK).is_file() and now - _changed(entry / MARK) > KEEP_S and not self._is_used(entry.name):
                self._remove(entry)

    def _is_used(self, digest: str) -> bool:
        return next(self._own.parent.parent.glob(f"*/{self._own.name}/{digest}"), None) is not None

    def _lock_file(self, digest: str) -> Path:
        """Some share one: such files cannot be removed, and are not to grow in number."""
        return self._folder / "locks" / f"{digest[:2]}.lock"

    def _remove(self, folder: Path) -> None:
        lock = FileLock(self._lock_file(folder.name), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            return
        try:
            if not self._is_used(folder.name):
                doomed = folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial"))
                shutil.rmtree(doomed, ignore_errors=True)
        finally:
            lock.release()


@asynccontextmanager
async def _locked(path: Path, timeout_s: float, order: Order) -> AsyncIterator[None]:
    """Held against other tasks and other processes; the operating system lets go of it when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    began = time.monotonic()
    is_told = False
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if not is_told:
                log.info("requirements_awaited", extra={"environment": order.digest, "timeout_s": timeout_s})
                is_told = True
            if time.monotonic() - began > timeout_s:
                message = f"another process has not ended installing them within {timeout_s:g} s"
                raise ProjectError([not_installed(order, message)]) from None
        await asyncio.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        lock.release()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
