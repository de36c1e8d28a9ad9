"""Observed inputs: what a project's servers say of their tools, made a part of its versions.

What was observed once is used for every version after it, until somebody asks for a refresh: a server that changes its
tools changes no version by itself. Owns when a server is asked, and where its answer is in a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from changeover.build.builder import Builder
from changeover.build.mcp_tools import mcp_need, observed_path, spec_digest, written_observed
from changeover.errors import ProjectError
from changeover.giving_way import GivingWay
from changeover.project.load import Project, load
from changeover.project.problems import Problem
from changeover.resources.drift import observed
from changeover.resources.keeper import REASON_LIMIT_CHARS, said
from changeover.resources.mcp import McpSession
from changeover.resources.need import Need
from changeover.resources.pool import ResourcePool, User
from changeover.resources.resource import ResourceDown
from changeover.store.observations import Observations
from changeover.versions.snapshot import Snapshot

KIND = "mcp"
WORD = b"mcp_servers"
TOOLS_FILES = ("tools.yaml", "tools.yml", "tools.json")


class Observing:
    def __init__(self, builder: Builder, pool: ResourcePool, rows: Observations) -> None:
        self._builder = builder
        self._pool = pool
        self._rows = rows

    async def known(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what was observed before of the servers that it names."""
        project = await self._project(snapshot)
        if project is None:
            return snapshot
        found = await self._rows.known(KIND, _specs(project))
        return _with(snapshot, {observed_path(name): content for name, content in found.items()})

    @asynccontextmanager
    async def completed(self, snapshot: Snapshot, giving_way: GivingWay | None = None) -> AsyncIterator[Snapshot]:
        """And with what is observed now of those that never were. Raises `ProjectError` where a required one is down.

        One that is not required and not there adds a warning, and no tools. Those that were asked stay open within it,
        for whoever builds with the answers.
        """
        with self._asking() as asker:
            yield await self._complete(snapshot, asker, giving_way or GivingWay())

    @asynccontextmanager
    async def asked_again(self, snapshot: Snapshot, name: str) -> AsyncIterator[tuple[Snapshot, str]]:
        """The snapshot with what the server says now, and the digest of its entry, for `keep`.

        The server's session stays open within it. Raises `ProjectError`.
        """
        project = await self._project(snapshot)
        if project is None or name not in project.mcp_servers:
            raise ResourceDown(f"the folder names no MCP server '{name}' any more", hint="save it again, and build")
        with self._asking() as asker:
            found, problems = await self._ask(asker, project, [name])
            if name not in found:
                raise ProjectError([replace(problem, severity="error") for problem in problems])
            yield _with(snapshot, {observed_path(name): found[name]}), _specs(project)[name]

    async def keep(self, name: str, spec: str, content: bytes) -> None:
        await self._rows.put(KIND, name, spec, content, replace=True)

    # --- inside ----------------------------------------------------------------------------------

    async def _complete(self, snapshot: Snapshot, asker: User, giving_way: GivingWay) -> Snapshot:
        project = await self._project(snapshot)
        if project is None:
            return snapshot
        missing = [name for name in project.mcp_servers if observed_path(name) not in snapshot.files]
        if not missing:
            return snapshot
        async with giving_way.waiting():
            found, problems = await self._ask(asker, project, missing)
        errors = [problem for problem in problems if problem.severity == "error"]
        if errors:
            raise ProjectError(errors)
        specs = _specs(project)
        files = {
            observed_path(name): await self._rows.put(KIND, name, specs[name], content)
            for name, content in found.items()
        }
        return _with(snapshot, files, problems)

    @contextmanager
    def _asking(self) -> Iterator[User]:
        asker = User("build")
        try:
            yield asker
        finally:
            self._pool.give_back(asker)

    async def _ask(self, asker: User, project: Project, names: list[str]) -> tuple[dict[str, bytes], list[Problem]]:
        """What each server says, and what is wrong with those that say nothing."""
        around = self._builder.surroundings
        needs = {name: mcp_need(name, project, around) for name in names}
        were_open = [need for need in needs.values() if self._pool.keeper(need.key) is not None]
        await self._pool.take(asker, needs.values())
        failures = await asyncio.gather(*(self._renew(need) for need in were_open))
        failed = {need.name: reason for need, reason in zip(were_open, failures, strict=True) if reason}
        answers = {name: self._answer(need, failed.get(name, "")) for name, need in needs.items()}
        found = {name: answer for name, answer in answers.items() if isinstance(answer, bytes)}
        problems = [answer for answer in answers.values() if isinstance(answer, Problem)]
        return found, problems

    async def _renew(self, need: Need) -> str:
        """Have a session that was open before ask its server now; one that is down is opened anew.

        Returns why it did not answer, if so: what it said last is no answer.
        """
        keeper = self._pool.keeper(need.key)
        if keeper is None:
            return ""
        session = keeper.resource
        if keeper.status != "healthy" or not isinstance(session, McpSession):
            keeper.restart()
            await keeper.settled()
            return ""
        try:
            async with asyncio.timeout(session.check_timeout_s):
                await session.check()
        except (Exception, BaseExceptionGroup) as error:  # a library's: what a server lists may be anything
            return need.hidden(said(error))[:REASON_LIMIT_CHARS]
        return ""

    def _answer(self, need: Need, failure: str) -> bytes | Problem:
        """What its server said of its tools; else why it says nothing, which is `failure` where it was asked anew."""
        if failure:
            return self._problem(need, failure)
        try:
            session = self._pool.handle(need).live()
        except ResourceDown:
            keeper = self._pool.keeper(need.key)
            return self._problem(need, keeper.reason if keeper else "it was closed")
        assert isinstance(session, McpSession)
        return written_observed(observed(session.tools))

    def _problem(self, need: Need, reason: str) -> Problem:
        problem = need.problem(reason)
        return problem if need.required else replace(problem, severity="warning")

    async def _project(self, snapshot: Snapshot) -> Project | None:
        """The project, where its files name servers at all; reading them takes a moment."""
        if not any(WORD in snapshot.files.get(name, b"") for name in TOOLS_FILES):
            return None
        project = (await asyncio.to_thread(load, snapshot.files)).project
        return project if project.mcp_servers else None


def _specs(project: Project) -> dict[str, str]:
    return {name: spec_digest(spec) for name, spec in project.mcp_servers.items()}


def _with(snapshot: Snapshot, files: Mapping[str, bytes], problems: list[Problem] | None = None) -> Snapshot:
    unread = {path: entry for path, entry in snapshot.manifest.entries.items() if entry.unread}
    return Snapshot.of(
        {**snapshot.files, **files},
        problems=(*snapshot.problems, *(problems or ())),
        originals=snapshot.originals,
        unread=unread,
    )
