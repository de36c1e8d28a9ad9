"""Nothing of a value is left in a text that it was taken out of, however it is spelled there, and nothing else is."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from changeover.login import Login
from changeover.secret_values import HIDDEN, MIN_LINE_CHARS, MIN_SECRET_CHARS, Secrets, secrets_in, without_addresses

LETTERS = st.sampled_from(
    'ab*\\"%/: +é€\U0001f511\n2'
)  # few, so that values overlap; those that others spell otherwise
VALUES = st.frozensets(st.text(LETTERS, min_size=1, max_size=9), max_size=3)
SPELLINGS = (
    str,
    quote,
    quote_plus,
    lambda text: quote(text, safe="").lower(),
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
)


@settings(deadline=None)
@given(st.data(), VALUES)
def test_no_secret_is_left_however_it_is_spelled(data: st.DataObject, values: frozenset[str]) -> None:
    spelled = [spell(value) for value in sorted(values) for spell in SPELLINGS]
    pieces = st.sampled_from(spelled) | st.text(LETTERS, max_size=5) if spelled else st.text(LETTERS)
    text = "".join(data.draw(st.lists(pieces, max_size=6)))
    secrets = Secrets(values)
    hidden = secrets.hidden(text)
    assert not [
        value for value in values if len(value) >= MIN_SECRET_CHARS for spell in SPELLINGS if spell(value) in hidden
    ]
    assert secrets.hidden(hidden) == hidden


@settings(deadline=None)
@given(st.text(max_size=40), st.frozensets(st.text("xyz", min_size=1, max_size=9), max_size=3))
def test_a_text_without_secrets_stays_as_it_is(text: str, values: frozenset[str]) -> None:
    assume(not any(value in text for value in values))
    assert Secrets(values).hidden(text) == text


@settings(deadline=None)
@given(st.text(min_size=1, max_size=9), st.text(max_size=9))
def test_a_login_is_read_as_it_was_meant(name: str, password: str) -> None:
    written = f"{quote(name, safe='')}:{quote(password, safe='')}"
    sent = b64encode(f"{name}:{password}".encode()).decode()
    assert Login(written).authorization == f"Basic {sent}"
    url = f"https://{written}@host.example/path"
    assert HIDDEN in Secrets(frozenset([url])).hidden(f"sent {sent}")


def test_short_values_and_short_lines_are_no_secrets() -> None:
    value = "true\n" + "k" * MIN_LINE_CHARS
    text = f"123 is true, as {'k' * MIN_LINE_CHARS} is"
    assert Secrets(frozenset([value, "123", ""])).hidden(text) == "123 is true, as *** is"


def test_what_overlaps_is_hidden_whole() -> None:
    assert Secrets(frozenset(["left-of", "of-the-long-one"])).hidden("(left-of-the-long-one)") == "(***)"


def test_the_token_behind_a_scheme_is_a_secret_of_its_own() -> None:
    assert Secrets(frozenset(["Bearer tok-1"])).hidden("no tok-1, no Bearer tok-1") == "no ***, no ***"


@pytest.mark.parametrize("left", ["pa%2Fss", "pa/ss", b64encode(b"user:pa/ss").decode(), "https://user:pa%2Fss@host/x"])
def test_the_password_of_an_address_is_hidden_and_its_short_name_is_not(left: str) -> None:
    secrets = Secrets(frozenset(["https://user:pa%2Fss@host/x"]))
    assert secrets.hidden(f"user was told {left}") == "user was told ***"


def test_a_name_that_stands_alone_is_a_password() -> None:
    secrets = Secrets(frozenset(["https://tok-1@host/x"]))
    assert (
        secrets.hidden(f"tok-1, {b64encode(b'tok-1').decode()} or {b64encode(b'tok-1:').decode()}") == "***, *** or ***"
    )


def test_a_variable_is_a_secret_by_its_name_or_for_the_login_in_it() -> None:
    secrets = secrets_in(
        {
            "INDEX_PASSWORD": "pass-of-index",
            "PLACE": "https://long-name:pw-1@a.example https://root:pw-2@b.example",
            "HOME": "/home/somebody",
        }
    )
    said = secrets.hidden("pass-of-index, long-name, pw-1, root, pw-2, /home/somebody")
    assert said == "***, ***, ***, root, ***, /home/somebody"


def test_of_an_address_only_the_host_is_left() -> None:
    said = without_addresses("no https://me:pw@a.example/simple/t0ken?key=x#y, nor http://b.example and git+ssh://c/")
    assert said == "no https://a.example/... nor http://b.example/ and git+ssh://c/"


def test_names_stand_for_values_where_a_person_is_to_see_which_was_meant() -> None:
    names = {"value-1": "${ONE}", "value-1-longer": "${TWO}"}
    assert Secrets(frozenset(names)).named("value-1 and value-1-longer", names) == "${ONE} and ${TWO}"
    lines = {"one-long-line": "${LINE}", "x\none-long-line": "${LINES}"}
    assert Secrets(frozenset(lines)).named("one-long-line", lines) == "${LINE}"


def test_hiding_takes_no_longer_for_a_value_that_could_be_read_in_many_ways() -> None:
    began = time.monotonic()
    assert Secrets(frozenset(["\\" * 40 + "x"])).hidden("\\" * 10_000 + "y") == "\\" * 10_000 + "y"
    assert time.monotonic() - began < 2


def test_secrets_do_not_show_themselves() -> None:
    assert "value" not in repr(Secrets(frozenset(["a-value"]))).replace("secret_values", "")
    assert "value" not in repr(Login("me:a-value"))
