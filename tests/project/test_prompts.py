"""Prompts as templates, and `${NAME}` in values."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

from changeover.project.environment import MissingVariable, read_env_file, references, resolve
from changeover.project.load import load
from changeover.project.prompts import Prompts
from changeover.project.schema import schemas
from changeover.project.words import BadType, parse_type, switch_word

FRONT = "---\ndescription: x\nvariables:\n  company: {default: Acme}\n  tenant:\n---\n"


def prompts(**texts: str) -> Prompts:
    files = {f"prompts/{name}.md": text.encode() for name, text in texts.items()}
    return Prompts(load(files).project.prompts)


def test_a_prompt_is_rendered_with_its_defaults_and_its_includes() -> None:
    known = prompts(
        a=FRONT + "{{ company }} {{ tenant }} {% include 'b.md' %}", b="---\nvariables: {x: {default: 1}}\n---\n{{ x }}"
    )
    assert known.render("a", {"tenant": "t"}) == "Acme t 1"
    assert known.render("a", {"tenant": "t", "x": 2, "company": "Co"}) == "Co t 2"
    assert known.variables("a") == {"company", "tenant", "x"}


def test_what_is_undefined_is_an_error() -> None:
    with pytest.raises(TemplateError, match="tenant"):
        prompts(a=FRONT + "{{ tenant }}").render("a", {})


def test_what_users_say_is_never_a_template() -> None:
    assert prompts(a="{{ said }}").render("a", {"said": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 9 ** 999999999 }}",
        "{% for i in range(9999999) %}x{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% include '../secret' %}",
    ],
)
def test_a_template_cannot_leave_its_box(text: str) -> None:
    known = prompts(a=text)
    assert known.variables("a") == set()  # looking evaluates nothing
    with pytest.raises((TemplateError, OverflowError)):
        known.render("a", {})


def test_references_are_resolved_everywhere_inside_a_value() -> None:
    value = {"a": ["${X}", {"b": "Bearer ${Y:-none}"}], "c": "$${X}", "d": 1}
    assert references(value) == {"X", "Y"}
    assert resolve(value, {"X": "1"}) == {"a": ["1", {"b": "Bearer none"}], "c": "${X}", "d": 1}
    assert resolve("${Y:-none}", {"Y": ""}) == "none"
    assert resolve("${Y}", {"Y": "${X}", "X": "1"}) == "${X}"
    with pytest.raises(MissingVariable, match="X"):
        resolve(value, {})


def test_values_of_an_env_file_are_literal() -> None:
    assert read_env_file("A=1\nexport B='x y'\nC=${A}\nD\n") == {"A": "1", "B": "x y", "C": "${A}"}


def test_types_of_the_format_are_read() -> None:
    assert parse_type("dict[str, list[graphs.t:T]?]").refs() == ["graphs.t:T"]
    assert parse_type("list[str]?").optional
    for wrong in ("", "strr", "list[]", "list[str", "dict[int,str]", "str]", "int[str]", "list[" * 100):
        with pytest.raises(BadType):
            parse_type(wrong)


def test_a_switch_compares_words() -> None:
    assert [switch_word(value) for value in (True, None, 3, "x")] == ["true", "null", "3", "x"]


def test_every_kind_of_file_has_a_schema() -> None:
    assert set(schemas()) == {"agents.yaml", "tools.yaml", "graph", "prompt", "changeover.yaml", "migration"}
    assert all(schema["properties"] for schema in schemas().values())
    assert "from" in str(schemas()["graph"])
