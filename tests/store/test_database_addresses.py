"""A wrong address of a database, or a right that is missing, is said in one sentence that shows no password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from changeover.database_address import mark_of, without_password
from changeover.errors import ChangeoverError, OperatorError, Unavailable
from changeover.settings import Settings
from changeover.store.backup import back_up
from changeover.store.opening import Store

WRONG = [
    "postgresql://u:s3cret@[::1/x",
    "postgresql://u:s3c%ret@127.0.0.1:1/x",
    "postgresql://u:a@s3cret/x@127.0.0.1:1/x",
    "postgresql://u:12/s3cret@127.0.0.1:1/x",
    "postgresql://u:s3cret@127.0.0.1:s3cret/x",
    "postgresql://u:s3cret@127.0.0.1:70000/x",
    "postgresql://127.0.0.1:1/x?s3cret=1&password=s3cret",
    "postgresql+psycopg://u:s3cret@127.0.0.1:1/x",
    "host=127.0.0.1 password=s3cret",
    "mysql://u:s3cret@h/x",
]


@pytest.mark.parametrize("address", WRONG)
def test_a_wrong_address_is_a_wrong_setting_and_nothing_of_it_is_shown(address: str, tmp_path: Path) -> None:
    settings = Settings.load(None, {"database": address}, {})
    with pytest.raises(OperatorError) as refused:
        settings.database_address(tmp_path)
    told = f"{refused.value.message} {refused.value.hint}"
    assert refused.value.code == "bad-setting"
    assert "postgresql://" in told
    assert "s3c" not in told
    assert "s3c" not in str(settings.rows())


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:s3cret@127.0.0.1:1/x",
        "postgresql://u:s3%40cret@h1:1,h2:2/x?sslmode=prefer",
        "postgresql://u@[::1]:5432/x",
        "postgres:///x?host=/run/postgresql&password=s3cret",
        "postgresql://",
    ],
)
def test_a_right_address_is_taken_as_it_is_and_shown_without_its_password(address: str, tmp_path: Path) -> None:
    settings = Settings.load(None, {"database": address}, {})
    assert settings.database_address(tmp_path) == address
    assert "s3" not in str(settings.rows())


@pytest.mark.parametrize(
    "address",
    ["host=h password=s3cret user=u", "host=h password = 's3 s3\\' s3' user=u", "postgresql:///x?sslpassword=s3"],
)
def test_a_password_is_masked_in_every_form(address: str) -> None:
    assert "s3" not in without_password(address)


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:s3cret@[::1/x", "postgresql://u:s3c%ret@h/x", "postgresql://u:s3cret@127.0.0.1:1/x?sslmode=odd"],
)
def test_a_store_that_is_given_a_wrong_address_does_not_show_it_either(address: str) -> None:
    with pytest.raises(OperatorError) as refused:
        Store.open(address)
    assert "s3c" not in str(refused.value)


def test_a_backup_of_a_database_that_is_not_reached_says_what_a_start_says(tmp_path: Path) -> None:
    address = "postgresql://u:s3cret@127.0.0.1:1/x"
    said: list[ChangeoverError] = []
    for door in (lambda: Store.open(address), lambda: back_up(address, tmp_path / "x.tar")):
        with pytest.raises(Unavailable) as refused:
            door()
        said.append(refused.value)
    assert said[0].hint == said[1].hint
    assert said[0].message in said[1].message
    assert "s3cret" not in said[1].message


@pytest.fixture
def other_user(postgres_url: str) -> Iterator[str]:
    """The address of the database for a user who may make nothing in it."""
    parts = urlsplit(postgres_url)
    name = f"user_{parts.path.removeprefix('/')}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 's3cret'").format(sql.Identifier(name)))
        place = parts.netloc.rpartition("@")[2]
        yield urlunsplit(parts._replace(netloc=f"{name}:s3cret@{place}"))
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


async def test_a_user_without_a_right_to_make_schemas_may_own_ours(postgres_url: str, other_user: str) -> None:
    with pytest.raises(OperatorError) as refused:
        Store.open(other_user)
    assert "schema 'changeover'" in str(refused.value.hint)
    user = sql.Identifier(urlsplit(other_user).username or "")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA changeover AUTHORIZATION {}").format(user))
    for _ in range(2):
        await Store.open(other_user).close()


def test_a_read_only_database_is_called_one(postgres_url: str) -> None:
    name = sql.Identifier(urlsplit(postgres_url).path.removeprefix("/"))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    with pytest.raises(OperatorError, match="read-only"):
        Store.open(postgres_url)


def test_a_database_is_told_from_others_and_not_by_who_asks() -> None:
    here = mark_of("postgresql://u:s3cret@h:5432/x")
    assert here == mark_of("postgres://h/x?user=w&password=rotated")
    assert len({here, mark_of("postgresql://h/y"), mark_of("postgresql://h:1/x"), mark_of("postgresql://k/x")}) == 4
    assert mark_of(Path("/a/c.db")) == mark_of("sqlite:////a/b/../c.db") != mark_of(Path("/a/d.db"))
