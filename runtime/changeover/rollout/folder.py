"""The folder that a person edits, and how it becomes versions.

Owns the way from its bytes to a stored version, whether those bytes were dealt with, and the values of its `.env`. It
moves no traffic: who builds decides what is served.

Invariants: one build at a time; a build that fails changes nothing but its own row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from changeover.build.builder import Builder, Candidate
from changeover.build.loaded import Compiled
from changeover.build.loader import Loader
from changeover.build.mcp_tools import observed_path
from changeover.contracts.chain import Chain, chain_text, chains_of
from changeover.contracts.contract import FORMAT as CONTRACT_FORMAT
from changeover.errors import ChangeoverError, Conflict, OperatorError, ProjectError
from changeover.giving_way import GivingWay
from changeover.project.check_server import demand_alerts
from changeover.project.document import read
from changeover.project.langgraph import LANGGRAPH_FILE
from changeover.project.problems import Problem
from changeover.rollout.folder_files import LAST_SEEN, FolderFiles
from changeover.rollout.observing import Observing
from changeover.rollout.variables import MAY_COME, Variables
from changeover.settings import Settings
from changeover.store.opening import Store
from changeover.store.records.routing import Routing
from changeover.store.records.version import GraphEntry, NewVersion, Version
from changeover.store.versions import contract_digest
from changeover.versions.snapshot import Snapshot, SnapshotUnstable, problems_of

log = logging.getLogger(__name__)

READS = 20  # until nobody else has dealt with the folder meanwhile
SETTINGS_FILES = ("changeover.yaml", "changeover.yml", "changeover.json")


@dataclass(frozen=True)
class FolderGraphs:
    """The contracts and chains of a folder that is no version, by graph; `last_number` is of its newest step."""

    contracts: Mapping[str, Mapping[str, Any]]
    chains: Mapping[str, Chain]
    last_number: int


class ProjectFolder:
    """A project's folder: `build` it, `check` it, follow its `.env`."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        store: Store,
        loader: Loader,
        builder: Builder,
        observing: Observing,
        failed: Callable[[ProjectError], None],
    ) -> None:
        self.path = path
        self._settings = settings
        self._store = store
        self._loader = loader
        self._builder = builder
        self._observing = observing
        self._failed = failed
        self.files = FolderFiles(path, settings, store.journal)
        self._building = asyncio.Lock()
        self._known: str | None = None  # what was seen last when the watcher looked
        self._variables = Variables(path, builder, loader, store.journal)
        self._tried_with: Mapping[str, str] | None = None  # the environment of the last build
        self.awaits_others = False  # the last build was rejected for nothing but what was not there

    async def take_up(self) -> None:
        """Before anything is built: bring to its end what an earlier process began to write, and take the environment.

        What cannot be finished keeps nobody from being served: whoever reads the folder is told.
        """
        try:
            await self.files.finish()
        except ChangeoverError as error:
            log.warning("edit_not_finished", extra={"reason": error.message, "hint": error.hint})
        await self._variables.read()

    def close(self) -> None:
        """Take out of the process's environment what langgraph.json has put there."""
        self._variables.close()

    async def check(self, files: Mapping[str, str] | None = None) -> list[Problem]:
        """What can be told to be wrong with the folder, `files` in place of its own, without building anything."""
        snapshot = await self.files.read()
        if files:
            snapshot = self.files.replaced(snapshot, files)
        return await asyncio.to_thread(problems_of, snapshot, self._builder.environment, self._settings.requirements)

    async def unsupported(self) -> list[Problem]:
        """What of the folder's langgraph.json has no effect here, for a server to say when it starts."""
        if not (self.path / LANGGRAPH_FILE).exists():
            return []
        return [found for found in await self.check() if found.path == LANGGRAPH_FILE and found.severity == "warning"]

    async def build(
        self,
        message: str = "",
        files: Mapping[str, str] | None = None,
        *,
        author: str = "library",
        write: bool = False,
        base: Mapping[str, str | None] | None = None,
    ) -> Version:
        """A version of the folder as it is now, with `files` in place of its own where given.

        The same bytes are the same version. With `write` the files are saved in the folder too, once they are built;
        `base` says of which SHA-256 files of the folder must be. Raises `ProjectError` with every problem; a version
        that failed is kept as `rejected`, and nothing else has changed; and `Conflict` where nothing could be written.
        """
        await self._follow_environment()
        async with self._building:
            folder = await self.files.read()
            self.files.demand_base(folder, base or {})
            if not files:
                version = await self._build_seen(await self._observing.known(folder), message, author)
                await self.seen(version.digest)
                return version
            wanted = self.files.replaced(folder, files)
            if write:
                await self.files.demand_writable(folder, wanted, files)
            version = await self._build(await self._observing.known(wanted), message, author)
            if write:
                await self._write(version, folder, files, author)
            return version

    async def refresh(self, server: str, author: str = "library") -> Version:
        """A version of the folder with what an MCP server says of its tools now; nothing is switched.

        The same version as before where nothing is new. Raises `ProjectError`, where the server is down too.
        """
        await self._follow_environment()
        async with self._building:
            async with self._observing.asked_again(await self._snapshot(), server) as (snapshot, spec):
                version = await self._build_seen(snapshot, f"refreshed {server}", author)
            await self.seen(version.digest)  # first: to a watcher the new tools are no save
            await self._observing.keep(server, spec, snapshot.files[observed_path(server)])
            return version

    async def described(self) -> FolderGraphs:
        """The graphs of the folder as it is now, compiled to be looked at; nothing is kept. Raises `ProjectError`."""
        await self._follow_environment()
        async with self._building:
            async with self._observing.completed(await self._snapshot()) as snapshot:
                candidate = await self._compile(snapshot)
            try:
                migrations = candidate.project.migrations
                contracts = {name: dict(compiled.contract) for name, compiled in candidate.graphs.items()}
                return FolderGraphs(
                    contracts, chains_of(migrations), max((one.number for one in migrations), default=0)
                )
            finally:
                self._loader.discard(candidate)

    async def build_if_changed(self, giving_way: GivingWay | None = None) -> Version | None:
        """A version of the folder if its bytes differ from those seen last, else None.

        Bytes that were rejected are tried again once the environment is another than it was then, and while they were
        for something that was not there. Raises `Overtaken`; then nothing is kept of it.
        """
        async with self._building:
            read = await self._read_as_seen()
            if giving_way is not None:
                giving_way.about = read.digest
            snapshot = await self._observing.known(read)
            is_seen = snapshot.digest == self._known
            if is_seen and not await self._is_worth_another_try(snapshot.digest):
                return None
            return await self._build_seen(snapshot, "saved", "watcher", giving_way)

    async def dealt_with(self, digest: str) -> None:
        """What `build_if_changed` found was dealt with, unless somebody has dealt with newer bytes meanwhile."""
        await self._store.journal.remember_instead(LAST_SEEN, digest, self._known)

    async def seen(self, digest: str) -> None:
        """Remember that these bytes of the folder were dealt with: they are no new save, also after a restart."""
        await self._store.journal.remember(LAST_SEEN, digest)

    async def refresh_environment(self, giving_way: GivingWay | None = None, *, again: bool = False) -> bool:
        """Take a changed `.env`: what depends on it is compiled anew, without a new version.

        With `again` also one that could not be taken to the end before.
        """
        if not await self._variables.changed() and not (again and self._variables.is_owed):
            return False
        async with self._building:
            await self._variables.take(giving_way)
        return True

    async def retry_environment(self, giving_way: GivingWay | None = None) -> None:
        """Take what of a changed `.env` could not be taken before, from time to time."""
        if self._variables.is_due:
            await self.refresh_environment(giving_way, again=True)

    async def environment_mark(self) -> str | None:
        """Another one each time that a process on the database has taken a changed environment."""
        return await self._variables.mark()

    async def has_news(self, than: GivingWay) -> bool:
        """Whether the folder holds an edit that neither this work is about nor was dealt with before."""
        if await self._variables.changed():
            return True
        snapshot = await self.files.read()
        if than.about is not None:
            return snapshot.digest != than.about
        return (await self._observing.known(snapshot)).digest != await self._store.journal.note(LAST_SEEN)

    async def status(self, routing: Routing | None) -> dict[str, Any]:
        """Whether the folder's bytes are those that serve, and what was wrong with them when they were built."""
        try:
            snapshot = await self._snapshot()
        except (Conflict, OperatorError) as error:
            return {"differs": True, "version": None, "problems": [], "error": error.message}
        version = await self._store.versions.by_digest(snapshot.digest)
        return {
            "differs": routing is None or version is None or version.id != routing.current,
            "version": version.id if version else None,
            "problems": list(version.problems) if version and version.status == "rejected" else [],
        }

    # --- inside ----------------------------------------------------------------------------------

    async def _read_as_seen(self) -> Snapshot:
        """The folder, and what was seen of it last: another process may write to it just when it is read here."""
        for _ in range(READS):
            self._known = await self._store.journal.note(LAST_SEEN)
            snapshot = await self.files.read()
            if await self._store.journal.note(LAST_SEEN) == self._known:
                return snapshot
        raise SnapshotUnstable("the folder is built and written to again and again", hint="try again later")

    async def _is_worth_another_try(self, digest: str) -> bool:
        if self._tried_with == self._builder.environment and not self.awaits_others:
            return False
        known = await self._store.versions.by_digest(digest)
        return known is not None and known.status == "rejected"

    async def _follow_environment(self) -> None:
        """Take a changed `.env` before a build. What serves and cannot be built with it goes on as it was."""
        try:
            await self.refresh_environment(again=True)
        except ProjectError as error:
            log.warning("environment_not_taken", extra={"problems": [problem.render() for problem in error.problems]})

    async def _write(self, version: Version, folder: Snapshot, files: Mapping[str, str], author: str) -> None:
        """Save what a version was built with. Where that cannot be, the version is there all the same, and is named."""
        try:
            await self.files.write(folder, files, version.digest)
        except Conflict as error:
            error.extra["version"] = version.id
            raise
        await self._store.journal.add_event("folder_written", version=version.id, files=sorted(files), actor=author)

    async def _build_seen(
        self, snapshot: Snapshot, message: str, author: str, giving_way: GivingWay | None = None
    ) -> Version:
        """A rejected edit was dealt with; one that could not be written, or did not come to an end, was not."""
        try:
            return await self._build(snapshot, message, author, giving_way)
        except ProjectError:
            await self.seen(snapshot.digest)
            raise

    async def _build(
        self, snapshot: Snapshot, message: str, author: str, giving_way: GivingWay | None = None
    ) -> Version:
        self._tried_with, self.awaits_others = self._builder.environment, False
        known = await self._store.versions.by_digest(snapshot.digest)
        if known is not None and known.status != "rejected":
            return known
        try:
            async with self._observing.completed(snapshot, giving_way) as snapshot:
                known = await self._store.versions.by_digest(snapshot.digest)
                if known is not None and known.status != "rejected":
                    return known
                candidate = await self._compile(snapshot, giving_way)
        except ProjectError as error:
            raise await self._reject(snapshot, message, author, error) from None
        try:
            version = await self._store.versions.put(*_accepted(snapshot, candidate, message, author))
        except BaseException:
            self._loader.discard(candidate)
            raise
        self._loader.adopt(version.id, candidate, number=version.number, is_new=True)
        log.info("version_ready", extra={"version": version.id, "changed": list(version.changed)})
        return version

    async def _compile(self, snapshot: Snapshot, giving_way: GivingWay | None = None) -> Candidate:
        if not snapshot.is_complete:
            raise ProjectError(snapshot.problems)
        try:
            original = {path: text for path, text in snapshot.originals.items() if path == LANGGRAPH_FILE}
            return await self._loader.compile({**snapshot.files, **original}, giving_way)
        except OSError as error:
            raise OperatorError(
                f"cannot write the version's files: {error.strerror}", code="disk", hint="look at the disk and retry"
            ) from error

    async def _reject(self, snapshot: Snapshot, message: str, author: str, error: ProjectError) -> ProjectError:
        """Keep what failed with its problems, and say so. Returns the error to raise."""
        self.awaits_others = all(each.code in MAY_COME for each in error.problems if each.severity == "error")
        new = NewVersion(
            snapshot.digest,
            _manifest(snapshot),
            message,
            tuple(problem.to_json() for problem in error.problems),
            rejected=True,
            author=author,
        )
        known = await self._store.versions.by_digest(snapshot.digest)
        version = await self._store.versions.put(new, _blobs(snapshot))
        log.warning("version_rejected", extra={"version": version.id, "count": len(error.problems)})
        told = ProjectError(error.problems, version=version.id)
        if known is None or list(known.problems) != list(version.problems):  # else it was told before
            self._failed(told)
        return told

    async def _snapshot(self) -> Snapshot:
        """The folder, with what is known already of what lies outside of it."""
        return await self._observing.known(await self.files.read())


def settings_file(folder: Path) -> dict[str, Any]:
    """changeover.yaml as data. What is wrong with it is reported when the folder is built.

    Not so its alerts, which no version holds: raises `OperatorError` with their problems.
    """
    for name in SETTINGS_FILES:
        try:
            document = read(name, (folder / name).read_bytes())
        except OSError:
            continue
        demand_alerts(document)
        return document.data if isinstance(document.data, dict) else {}
    return {}


def _accepted(
    snapshot: Snapshot, candidate: Candidate, message: str, author: str
) -> tuple[NewVersion, dict[str, bytes]]:
    project = candidate.project
    graphs: dict[str, GraphEntry] = {}
    chains = chains_of(project.migrations)
    for name, compiled in candidate.graphs.items():
        spec = project.agents.get(name) or project.graphs.get(name)
        described = spec or project.langgraph_graphs.get(name)
        threads, description = spec.threads if spec else "auto", described.description if described else ""
        graphs[name] = graph_entry(compiled, threads, description, chains.get(name, ()))
    new = NewVersion(
        snapshot.digest,
        _manifest(snapshot),
        message,
        tuple(problem.to_json() for problem in (*snapshot.problems, *candidate.warnings)),
        graphs=graphs,
        contracts={compiled.digest: dict(compiled.contract) for compiled in candidate.graphs.values()},
        contract_format=CONTRACT_FORMAT,
        author=author,
    )
    return new, _blobs(snapshot)


def graph_entry(compiled: Compiled, threads: str, description: str, chain: Chain = ()) -> GraphEntry:
    contract = contract_digest(dict(compiled.contract))
    return GraphEntry(compiled.digest, contract, threads, description, chain_text(chain))


def _manifest(snapshot: Snapshot) -> dict[str, str]:
    return {path: entry.sha256 for path, entry in snapshot.manifest.entries.items() if entry.sha256}


def _blobs(snapshot: Snapshot) -> dict[str, bytes]:
    entries = snapshot.manifest.entries
    return {entries[path].sha256: data for path, data in snapshot.files.items()}
