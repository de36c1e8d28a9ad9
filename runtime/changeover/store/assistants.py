"""Rows of assistants and of their versions.

An assistant is a graph with settings; each change of it is a new version, and `version` of its row says which one
applies. Versions are never changed and their numbers never used again while the assistant lives. An assistant
that exists without rows (the default one of a graph) is given by the caller, and gets rows when it is first changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from changeover.errors import Conflict, NotFound
from changeover.store import rows
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.records.assistant import Assistant, AssistantFilter
from changeover.store.records.ids import AssistantId

SortBy = Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"]
Change = Callable[[Assistant], Assistant]

COLUMNS = "id, graph, version, name, description, config, context, metadata, created_at, updated_at"
STORED = (
    "SELECT a.id, v.graph, a.version, v.name, v.description, v.config, v.context, v.metadata, a.created_at,"
    " a.updated_at FROM assistants a JOIN assistant_versions v ON v.assistant = a.id AND v.version = a.version"
)
GIVEN = (
    "SELECT json_extract(value, '$.id'), json_extract(value, '$.graph'),"
    " CAST(json_extract(value, '$.version') AS INTEGER), json_extract(value, '$.name'),"
    " json_extract(value, '$.description'), json_extract(value, '$.config'), json_extract(value, '$.context'),"
    " json_extract(value, '$.metadata'), CAST(json_extract(value, '$.created_at') AS DOUBLE PRECISION),"
    " CAST(json_extract(value, '$.updated_at') AS DOUBLE PRECISION)"
    " FROM json_each(:given) WHERE json_extract(value, '$.id') NOT IN (SELECT id FROM assistants)"
)
CONTAINS = "json_contains(metadata, :metadata)"
MATCHING = (
    f"SELECT {COLUMNS} FROM (SELECT * FROM ({STORED}) AS stored UNION ALL {GIVEN}) AS known"
    " WHERE (:graph IS NULL OR graph = :graph) AND (:name IS NULL OR instr(folded(name), folded(:name)) > 0)"
    f" AND (:metadata = '{{}}' OR {CONTAINS})"
)
ORDER: Mapping[SortBy, str] = {
    "assistant_id": "id",
    "graph_id": "graph",
    "name": "folded(name)",
    "created_at": "created_at",
    "updated_at": "updated_at",
}


class Assistants:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def get(self, id_: str) -> Assistant | None:
        return await self._database.read(lambda connection: _get(connection, id_), small=True)

    async def graphs(self) -> Mapping[str, float]:
        """Every graph that a version knows, with the time of the first of these versions."""

        def job(connection: Connection) -> Mapping[str, float]:
            found = connection.execute(
                "SELECT g.graph, min(v.created_at) FROM version_graphs g JOIN versions v ON v.id = g.version"
                " GROUP BY g.graph"
            )
            return dict(found.fetchall())

        return await self._database.read(job)

    async def put(self, new: Assistant, taken: Assistant | None) -> tuple[Assistant, bool]:
        """Create an assistant, or give the one that has its id (`taken`: one without rows), and whether it is new."""
        now = self._clock()

        def job(connection: Connection) -> tuple[Assistant, bool]:
            known = _get(connection, new.id) or taken
            if known is not None:
                return known, False
            created = replace(new, version=1, created_at=now, updated_at=now)
            _insert(connection, created)
            return created, True

        return await self._database.write(job)

    async def change(self, id_: AssistantId, change: Change, unstored: Assistant | None) -> Assistant:
        """Write a further version, which applies from now on."""
        now = self._clock()

        def job(connection: Connection) -> Assistant:
            before = _get(connection, id_)
            if before is None:
                before = _known(unstored, id_)
                _insert(connection, before)
            (newest,) = connection.execute(
                "SELECT max(version) FROM assistant_versions WHERE assistant = ?", (id_,)
            ).fetchone()
            after = replace(change(before), version=newest + 1, updated_at=now)
            _insert_version(connection, after, now)
            connection.execute(
                "UPDATE assistants SET version = ?, updated_at = ? WHERE id = ?", (after.version, now, id_)
            )
            return after

        return await self._database.write(job)

    async def set_latest(self, id_: AssistantId, version: int, unstored: Assistant | None) -> Assistant:
        """Let another version of the assistant apply."""
        now = self._clock()

        def job(connection: Connection) -> Assistant:
            before = _get(connection, id_)
            if before is None:
                return _of_version(_known(unstored, id_), version)
            moved = connection.execute(
                "UPDATE assistants SET version = :version, updated_at = :now WHERE id = :id AND EXISTS"
                " (SELECT 1 FROM assistant_versions WHERE assistant = :id AND version = :version)",
                {"version": version, "now": now, "id": id_},
            ).rowcount
            after = _get(connection, id_) if moved else None
            return after or _of_version(before, version)

        return await self._database.write(job)

    async def versions(
        self, id_: AssistantId, metadata: Mapping[str, Any], limit: int, offset: int, unstored: Assistant | None
    ) -> Sequence[Assistant]:
        """Its versions, newest first; `created_at` is that of each."""
        found = (
            "SELECT assistant AS id, graph, version, name, description, config, context, metadata, created_at,"
            " created_at AS updated_at FROM assistant_versions WHERE assistant = :id"
        )

        def job(connection: Connection) -> Sequence[Assistant]:
            given = [_row(unstored)] if unstored is not None else []
            if _get(connection, id_) is None:
                _known(unstored, id_)
            listed = connection.execute(
                f"SELECT {COLUMNS} FROM (SELECT * FROM ({found}) AS stored UNION ALL {GIVEN}) AS known"
                f" WHERE :metadata = '{{}}' OR {CONTAINS} ORDER BY version DESC LIMIT :limit OFFSET :offset",
                {
                    "id": id_,
                    "given": rows.dumps(given),
                    "metadata": rows.dumps(dict(metadata)),
                    "limit": limit,
                    "offset": offset,
                },
            )
            return [_assistant(row) for row in listed]

        return await self._database.read(job)

    async def delete(self, id_: AssistantId, keep_crons: bool) -> bool:
        """Delete an assistant with its versions, and its crons where it is gone by that; whether it had rows."""

        def job(connection: Connection) -> bool:
            deleted = connection.execute("DELETE FROM assistants WHERE id = ?", (id_,)).rowcount
            if deleted and not keep_crons:
                connection.execute("DELETE FROM crons WHERE assistant_id = ?", (id_,))
            return bool(deleted)

        return await self._database.write(job)

    async def threads(self, id_: AssistantId) -> Sequence[str]:
        """The threads of an assistant: those whose metadata names it or, where it names none, on which it ran last."""

        def job(connection: Connection) -> Sequence[str]:
            found = connection.execute(
                "SELECT id FROM threads t WHERE coalesce(json_extract(metadata, '$.assistant_id'),"
                " (SELECT assistant_id FROM runs WHERE thread_id = t.id ORDER BY seq DESC LIMIT 1)) = ? ORDER BY id",
                (id_,),
            )
            return [row[0] for row in found]

        return await self._database.read(job)

    async def search(
        self,
        wanted: AssistantFilter,
        given: Sequence[Assistant],
        *,
        sort_by: SortBy,
        descending: bool,
        limit: int,
        offset: int,
    ) -> Sequence[Assistant]:
        """Assistants, those without rows (`given`) among them."""
        direction = "DESC" if descending else "ASC"
        sql = f"{MATCHING} ORDER BY {ORDER[sort_by]} {direction}, id LIMIT :limit OFFSET :offset"

        def job(connection: Connection) -> Sequence[Assistant]:
            found = connection.execute(sql, {**_parameters(wanted, given), "limit": limit, "offset": offset})
            return [_assistant(row) for row in found]

        return await self._database.read(job)

    async def count(self, wanted: AssistantFilter, given: Sequence[Assistant]) -> int:
        def job(connection: Connection) -> int:
            (number,) = connection.execute(
                f"SELECT count(*) FROM ({MATCHING}) AS matching", _parameters(wanted, given)
            ).fetchone()
            return int(number)

        return await self._database.read(job)


def _get(connection: Connection, id_: str) -> Assistant | None:
    row = connection.execute(f"{STORED} WHERE a.id = ?", (id_,)).fetchone()
    return _assistant(row) if row else None


def _known(assistant: Assistant | None, id_: str) -> Assistant:
    if assistant is None:
        raise unknown(id_)
    return assistant


def _of_version(assistant: Assistant, version: int) -> Assistant:
    if assistant.version != version:
        raise NotFound(f"assistant {assistant.id} has no version {version}", code="unknown-assistant-version")
    return assistant


def unknown(given: str) -> NotFound:
    return NotFound(
        f"there is no assistant or graph '{given[:255]}'", code="unknown-assistant", hint="see POST /assistants/search"
    )


def exists(assistant: Assistant) -> Conflict:
    return Conflict(
        f"assistant {assistant.id} exists", code="assistant-exists", hint="send if_exists=do_nothing to get it"
    )


def _insert(connection: Connection, new: Assistant) -> None:
    connection.execute(
        "INSERT INTO assistants (id, version, created_at, updated_at) VALUES (?, ?, ?, ?)",
        (new.id, new.version, new.created_at, new.updated_at),
    )
    _insert_version(connection, new, new.created_at)


def _insert_version(connection: Connection, new: Assistant, at: float) -> None:
    connection.execute(
        "INSERT INTO assistant_versions (assistant, version, graph, name, description, config, context, metadata,"
        " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.id,
            new.version,
            new.graph,
            new.name,
            new.description,
            rows.dumps(dict(new.config)),
            rows.dumps(dict(new.context)),
            rows.dumps(dict(new.metadata)),
            at,
        ),
    )


def _parameters(wanted: AssistantFilter, given: Sequence[Assistant]) -> dict[str, Any]:
    return {
        "graph": wanted.graph,
        "name": wanted.name,
        "metadata": rows.dumps(dict(wanted.metadata)),
        "given": rows.dumps([_row(assistant) for assistant in given]),
    }


def _row(assistant: Assistant) -> dict[str, Any]:
    return {name: getattr(assistant, name) for name in COLUMNS.split(", ")}


def _assistant(row: Row) -> Assistant:
    id_, graph, version, name, description, config, context, metadata, created_at, updated_at = row
    return Assistant(
        AssistantId(id_),
        graph,
        version,
        name,
        description,
        json.loads(config),
        json.loads(context),
        json.loads(metadata),
        created_at,
        updated_at,
    )
