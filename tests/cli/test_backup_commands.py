"""`changeover backup` and `changeover restore`, as typed: with a server, beside one, and without."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from changeover import GraphVersionManager
from changeover.store.backup import examined

DEADLINE_S = 30.0


def address_of(process: Any) -> str:
    """Where a server that was just started answers."""
    for line in process.stderr:
        if " at http" in line:
            return str(line.split(" at ")[1].split()[0])
    raise AssertionError("the server ended at once")


@pytest.fixture
def used(sample: Path) -> Path:
    """The sample after one conversation."""

    async def talk() -> None:
        async with GraphVersionManager.open(sample) as manager:
            await manager.serve_folder()
            await manager.invoke("support", {"messages": [{"role": "user", "content": "hello"}]}, thread_id="t")

    asyncio.run(talk())
    return sample


def test_state_goes_into_a_file_and_comes_back(call, used: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    made = call("backup", str(copy), "--project", str(used))
    assert made.status == 0, made.err
    assert "1 versions, 1 threads, 1 runs" in made.out
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    again = call("backup", str(copy), "--project", str(used))
    assert (again.status, "--force" in again.err) == (2, True)
    refused = call("restore", str(copy), "--project", str(used))
    assert (refused.status, "--force" in refused.err) == (2, True)
    assert call("run", "support", "--project", str(used), "--thread", "later", "-i", "hello").status == 0
    restored = call("restore", str(copy), "--project", str(used), "--force", "-o", "json")
    told = json.loads(restored.out)
    assert restored.status == 0
    assert told["rows"] == {"versions": 1, "threads": 1, "runs": 1}
    with closing(sqlite3.connect(told["before"])) as old:
        assert old.execute("SELECT count(*) FROM threads").fetchone() == (2,)
    versions = json.loads(call("versions", "--project", str(used), "-o", "json").out)
    assert [version["id"] for version in versions["versions"]] == ["v1"]
    assert call("run", "support", "--project", str(used), "--thread", "t", "-i", "again").status == 0


def test_a_folder_without_a_project_gets_one_s_state(call, used: Path, tmp_path: Path) -> None:
    assert call("backup", str(tmp_path / "copy"), "--project", str(used)).status == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert call("restore", str(tmp_path / "copy"), "--project", str(elsewhere)).status == 0
    ran = call("run", "support", "--project", str(elsewhere), "--thread", "t", "-i", "again")
    assert ran.status == 0, ran.err


def test_a_server_goes_on_while_its_state_is_copied_and_keeps_it_from_being_replaced(
    call, start, used: Path, tmp_path: Path
) -> None:
    server = start("serve", "--port", "0", "--no-watch", cwd=used)
    url = address_of(server)
    beside = call("backup", str(tmp_path / "beside"), "--project", str(used))
    assert beside.status == 0, beside.err
    over = call("backup", str(tmp_path / "over"), "--url", url, "-o", "json")
    assert over.status == 0, over.err
    assert json.loads(over.out)["path"] == str(tmp_path / "over")
    assert examined(tmp_path / "over").rows == examined(tmp_path / "beside").rows
    assert stat.S_IMODE((tmp_path / "over").stat().st_mode) == 0o600
    refused = call("restore", str(tmp_path / "over"), "--project", str(used), "--force")
    assert refused.status == 2
    assert "another changeover process uses" in refused.err
    assert call("run", "support", "--url", url, "--thread", "t", "-i", "again").status == 0
    assert not [path for path in (used / ".changeover").iterdir() if path.name.startswith(".backup")]


def test_a_backup_over_http_asks_for_the_token(call, start, used: Path, tmp_path: Path) -> None:
    server = start("serve", "--port", "0", "--no-watch", cwd=used, CHANGEOVER_TOKEN="s3cret")
    url = address_of(server)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/admin/backup", timeout=DEADLINE_S)
    assert refused.value.code == 401
    assert call("backup", str(tmp_path / "copy"), "--url", url).status == 2
    assert not (tmp_path / "copy").exists()
    assert call("backup", str(tmp_path / "copy"), "--url", url, "--token", "s3cret").status == 0


def test_what_cannot_be_is_said_in_one_sentence(call, tmp_path: Path) -> None:
    nothing = call("backup", str(tmp_path / "copy"), "--project", str(tmp_path))
    assert nothing.status == 4
    assert "there is no database" in nothing.err
    assert call("restore", str(tmp_path / "copy"), "--project", str(tmp_path)).status == 4
    assert call("restore", str(tmp_path / "copy"), "--url", "http://127.0.0.1:1").status == 2
    assert call("backup", str(tmp_path / "copy"), "--url", "http://127.0.0.1:1").status == 3
    assert list(tmp_path.iterdir()) in ([], [tmp_path / ".changeover"])


def test_postgres_is_backed_up_by_the_same_verbs(
    call, new_postgres_url: Callable[[], str], tmp_path: Path, used: Path
) -> None:
    from changeover.store.postgres_schema import migrate_postgres

    first, second = new_postgres_url(), new_postgres_url()
    migrate_postgres(first)
    copy = tmp_path / "copy"
    made = call("backup", str(copy), "--project", str(used), "--database", first)
    assert made.status == 0, made.err
    assert call("restore", str(copy), "--project", str(used), "--database", second).status == 0
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT count(*) FROM changeover.versions").fetchone() == (0,)
    assert call("restore", str(copy), "--project", str(used)).status == 2  # not what a file is made of
    assert call("backup", str(tmp_path / "other"), "--project", str(used), "--database", second + "0").status == 3
