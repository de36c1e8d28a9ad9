"""What `check` tells of HTTP tools and OpenAPI documents, each at its place."""

from __future__ import annotations

import pytest

from changeover.project.check import analyse
from changeover.project.problems import Problem

AGENTS = "models: {m: {model: demo:rules}}\nagents:\n  a: {model: m}\n"
SHOP = """openapi: 3.0.3
info: {title: x, version: "1"}
servers: [{url: "https://shop.example/v1"}]
paths:
  /items/{id}:
    get:
      operationId: getItem
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
  /items: {get: {operationId: listItems}}
"""


def found(tool: str, files: dict[str, str] | None = None, **env: str) -> list[Problem]:
    text = {"agents.yaml": AGENTS, "tools.yaml": f"tools:\n  {tool}\n", "specs/shop.yaml": SHOP, **(files or {})}
    return analyse({path: content.encode() for path, content in text.items()}, env)[1]


def http(call: str, more: str = "") -> str:
    return f"t: {{description: a{more}, http: {{{call}}}}}"


BAD = [
    (http("url: ''"), "wrong-type", "''", "url"),
    (http("url: 'ftp://x/y'"), "tool-schema", "'ftp:", "no http or https URL"),
    (http("url: 'x.example'"), "tool-schema", "'x.example'", "no http or https URL"),
    (http("url: 'https://x.example:99999/'"), "tool-schema", "'https:", "no port"),
    (http("url: 'https://{host}/'", ", args: {host: string}"), "tool-schema", "'https:", "no http or https URL"),
    (http("url: 'https://x.example/a b'"), "tool-schema", "'https:", "spaces"),
    (http("url: 'https://x.example/../b'"), "tool-schema", "'https:", "'..'"),
    (http("url: 'https://x.example/#b'"), "tool-schema", "'https:", "fragment"),
    (http("url: 'http://127.0.0.1:80/'"), "tool-schema", "'http:", "private: true"),
    (http("url: 'http://localhost/'"), "tool-schema", "'http:", "private: true"),
    (http("url: 'http://[::1]/'"), "tool-schema", "'http:", "private: true"),
    (http("url: 'http://2130706433/'"), "tool-schema", "'http:", "private: true"),
    (http("url: '${HOST}/x'"), "tool-schema", "'${HOST}", "private: true"),
    (http("url: '${MISSING}/x'"), "env-missing", "${MISSING}", "MISSING is not set"),
    (http("url: 'https://x.example/{id}'"), "tool-schema", "'https:", "'{id}' in the URL is no argument"),
    (
        http("url: 'https://x.example/{id}'", ", args: {id: string?}"),
        "tool-schema",
        "id: string?",
        "cannot be left out",
    ),
    (http("url: 'https://x.example/', method: GTE"), "wrong-type", "GTE", "not 'GTE'"),
    (http("url: 'https://x.example/', timeout: soon"), "tool-schema", "soon", "a duration"),
    (http("url: 'https://x.example/', timeout: 1h"), "tool-schema", "1h", "up to 600s"),
    (http("url: 'https://x.example/', limit: 9GB"), "tool-schema", "9GB", "up to 50MB"),
    (http("url: 'https://x.example/', retries: 99"), "tool-schema", "99", "from 0 to 10"),
    (http("url: 'https://x.example/', headers: {Host: x}"), "tool-schema", "Host: x", "set by the client"),
    (http("url: 'https://x.example/', headers: {A: '${LINES}'}"), "tool-schema", "A: '${LINES}", "line break"),
    (http("url: 'https://x.example/'", ", args: {n: strng}"), "tool-schema", "strng", "no type 'strng'"),
    (
        http("url: 'https://x.example/'", ", args: {n: {type: integer, default: x}}"),
        "tool-schema",
        "x}}",
        "does not fit",
    ),
    (http("url: 'https://x.example/'", ", args: {n: {type: string, in: body}}"), "tool-schema", "body", "has no body"),
    ("t: {http: {url: 'https://x.example/'}}", "tool-schema", "t: {http", "no description"),
    (http("url: 'https://x.example/'", ", with: {a: 1}"), "unknown-key", "with:", "takes no 'with'"),
    ("t: {openapi: specs/shp.yaml}", "unknown-file", "specs/shp.yaml", "no file 'specs/shp.yaml'"),
    ("t: {openapi: ../specs/shop.yaml}", "tool-schema", "../specs", "outside of the project"),
    ("t: {openapi: /etc/passwd}", "tool-schema", "/etc/", "outside of the project"),
    ("t: {openapi: 'https://x.example/openapi.json'}", "tool-schema", "'https:", "a file of the project"),
    ("t: {openapi: specs/shop.yaml, operations: [getItem, lstItems]}", "unknown-operation", "lstItems", "'lstItems'"),
    ("t: {openapi: specs/shop.yaml, base_url: 'http://10.0.0.7/'}", "tool-schema", "'http:", "private: true"),
    ("t: {openapi: specs/shop.yaml, base_url: 'https://x.example/?a=b'}", "tool-schema", "'https:", "query"),
    ("t: {openapi: specs/shop.yaml, args: {a: string}}", "unknown-key", "args:", "takes no 'args'"),
]


@pytest.mark.parametrize(("tool", "code", "mark", "message"), BAD, ids=[row[0][:60] for row in BAD])
def test_a_bad_entry_is_told_at_its_place(tool: str, code: str, mark: str, message: str) -> None:
    problems = found(tool, HOST="http://10.1.2.3", LINES="a\nb")
    assert [(each.path, each.line, each.code) for each in problems] == [("tools.yaml", 2, code)]
    assert problems[0].text[problems[0].column - 1 :].startswith(mark)
    assert message in problems[0].message


def test_what_is_alike_is_suggested() -> None:
    assert "listItems" in found("t: {openapi: specs/shop.yaml, operations: [lstItems]}")[0].hint
    assert "'idd'" in found(http("url: 'https://x.example/{id}'", ", args: {idd: string}"))[0].hint
    agents = {"agents.yaml": AGENTS.replace("model: m}", "model: m, tools: [shop/getItm]}")}
    [unknown] = found("shop: {openapi: specs/shop.yaml}", agents)
    assert (unknown.code, unknown.path, unknown.line, unknown.column) == ("unknown-tool", "agents.yaml", 3, 25)
    assert "getItem" in unknown.hint


DOCUMENTS = [
    ("not: openapi", "this is no OpenAPI description"),
    ('swagger: "2.0"', "this is Swagger 2"),
    ("openapi: 4.0.0\npaths: {}", "OpenAPI 4.0.0 is not read here"),
    ("openapi: 3.0.0\npaths: []", "'paths' should be a mapping"),
    ("openapi: 3.0.0\npaths: {/a: {get: }", "flow mapping"),
    ("openapi: 3.0.0\n" + "#" * 2_000_001, "an OpenAPI file may have up to 2,000,000 bytes"),
    ("openapi: 3.0.0\npaths: {/a: {get: {parameters: [{$ref: 'other.yaml#/x'}]}}}", "leads out of the file"),
    ("openapi: 3.0.0\npaths: {/a: {get: {parameters: [{$ref: '#/x/y'}]}}}", "leads nowhere"),
    ("openapi: 3.0.0\npaths: {/a: {$ref: '#/paths/~1a'}}", "leads in a circle"),
    ("openapi: 3.0.0\npaths: {'/a/{b}': {get: {}}}", "'{b}', which is no parameter"),
    ("openapi: 3.0.0\npaths: {a: {get: {}}}", "does not begin with '/'"),
    (
        "openapi: 3.0.0\npaths: {/a: {get: {parameters: [{name: a, in: query, schema: {type: strng}}]}}}",
        "no type 'strng'",
    ),
    ("openapi: 3.0.0\npaths: {/a: {get: {operationId: x}}, /b: {get: {operationId: x}}}", "'x' is also GET /a"),
    ("openapi: 3.0.0\npaths: {/a: {post: {requestBody: {required: true, content: {image/png: {}}}}}}", "image/png"),
]


@pytest.mark.parametrize(("text", "message"), DOCUMENTS, ids=[row[1] for row in DOCUMENTS])
def test_a_bad_document_is_told(text: str, message: str) -> None:
    problems = found("t: {openapi: specs/shop.yaml, base_url: 'https://x.example'}", {"specs/shop.yaml": text})
    assert [each.path for each in problems] == ["specs/shop.yaml"]
    assert message in problems[0].message


def test_a_document_that_grows_without_end_is_refused() -> None:
    levels = "".join(
        f"    L{n}: {{type: object, properties: {{a: {{$ref: '#/components/schemas/L{n + 1}'}}, "
        f"b: {{$ref: '#/components/schemas/L{n + 1}'}}}}}}\n"
        for n in range(20)
    )
    text = (
        "openapi: 3.0.0\npaths: {/a: {post: {requestBody: {content: {application/json: {schema: "
        "{$ref: '#/components/schemas/L0'}}}}}}}\ncomponents:\n  schemas:\n" + levels + "    L20: {type: string}\n"
    )
    problems = found("t: {openapi: specs/shop.yaml, base_url: 'https://x.example'}", {"specs/shop.yaml": text})
    assert "too large to be given to a model" in problems[0].message


def test_a_good_project_has_no_problems() -> None:
    env = {"SHOP": "https://shop.example", "TOKEN": "t"}
    assert found("shop: {openapi: specs/shop.yaml, base_url: '${SHOP}/v2', headers: {A: '${TOKEN}'}}", **env) == []
    assert found(http("url: '${SHOP}/i/{id}?k={k}', method: POST", ", args: {id: string, k: integer?}"), **env) != []
    assert (
        found(http("url: '${SHOP}/i/{id}', body: form, method: POST", ", args: {id: string, k: integer}"), **env) == []
    )
    assert found(http("url: 'http://127.0.0.1/', private: true")) == []
