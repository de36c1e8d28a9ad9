"""Edit: prompts and YAML in the browser, checked as they are typed, and built as a version that nothing is switched to.

What is built is the folder as it is with the texts of the form in place of its own. Every answer but a redirect gives
back what was typed, whatever became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from changeover.server.ui.api import Api, Json, Refused, together
from changeover.server.ui.drafts import FILES_LIMIT, NO_FILE, Draft, bases_of, difference, drafts_of, sha256
from changeover.server.ui.pages import Pages
from changeover.server.ui.serving import routing_of
from changeover.server.ui.shown import segment

LISTED = 500
TEXTS = (".md", ".txt", ".yaml", ".yml", ".json", ".py")


@dataclass(frozen=True, slots=True)
class Opened:
    """A draft beside what is known of it: whether the folder's text is another one than that of the version."""

    draft: Draft
    is_new: bool = False
    differs: bool = False
    problem: Json | None = None


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/edit")
    async def edit(
        request: Request,
        path: Annotated[list[str] | None, Query(max_length=FILES_LIMIT)] = None,
        version: str = "",
        line: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        api = pages.api(request)
        paths = list(dict.fromkeys(one.strip() for one in path or () if one.strip()))
        if not paths:
            return pages.plain(request, "edit_files.html", **await _files(api, version))
        opened = await asyncio.gather(*(_open(api, one, version) for one in paths))
        return pages.plain(request, "edit.html", **_shown(opened, version=version, line=line))

    @routes.post("/edit/check")
    async def check(request: Request) -> Response:
        """What is wrong with the drafts as they are typed, as a part of the page."""
        form = await _form(request)
        return pages.plain(request, "edit_problems.html", **await _checked(pages.api(request), drafts_of(form)))

    @routes.post("/edit")
    async def build(request: Request) -> Response:
        """Build the drafts; or, without scripts, check them, or open a further file beside them."""
        api = pages.api(request)
        form = await _form(request)
        drafts = drafts_of(form)
        version, message = str(form.get("version", "")), str(form.get("message", ""))
        write = form.get("write") == "yes"
        added = str(form.get("add") or form.get("open", "")).strip()
        if "add" in form or ("check" in form and added):
            known = {draft.path for draft in drafts}
            more = [await _open(api, added, version)] if added and added not in known else []
            told = _shown([*map(Opened, drafts), *more][:FILES_LIMIT], version=version, message=message, write=write)
            return pages.plain(request, "edit.html", **told)
        if "check" in form:
            told = _shown([*map(Opened, drafts)], version=version, message=message, write=write)
            return pages.plain(request, "edit.html", **told | await _checked(api, drafts))
        try:
            built = await _build(api, drafts, message, write=write)
        except Refused as error:
            told = await _refused(api, error, drafts)
            opened = [Opened(draft) for draft in told.pop("drafts")]
            told = _shown(opened, version=version, message=message, write=write) | told
            return pages.plain(request, "edit.html", error.status, **told)
        made = {"version": built["id"], "path": [draft.path for draft in drafts], "base": bases_of(drafts)}
        return pages.to(request, "edit/built", **made)

    @routes.get("/edit/built")
    async def built(
        request: Request,
        version: str,
        path: Annotated[list[str] | None, Query(max_length=FILES_LIMIT)] = None,
        base: Annotated[list[str] | None, Query(max_length=FILES_LIMIT)] = None,
    ) -> Response:
        """What was built, and what may be done with it now."""
        told = await _built(pages.api(request), version, path or [], base or [])
        return pages.plain(request, "edit_built.html", **told)

    @routes.post("/edit/write")
    async def write(
        request: Request,
        version: Annotated[str, Form()],
        path: Annotated[list[str], Form(max_length=FILES_LIMIT)],
        base: Annotated[list[str], Form(max_length=FILES_LIMIT)],
    ) -> Response:
        """Save texts of a version in the folder. The same bytes are the same version."""
        api = pages.api(request)
        texts = await asyncio.gather(*(_version_text(api, version, one) for one in path))
        known = {one: None if told == NO_FILE else told for one, told in zip(path, base, strict=False)}
        wanted = {"files": dict(zip(path, texts, strict=True)), "write": True, "base": known}
        made = await api.post("/admin/versions", wanted)
        bases = [sha256(text) for text in texts]
        return pages.to(request, "edit/built", version=made["id"], path=path, base=bases)

    return routes


# --- forms


async def _form(request: Request) -> FormData:
    """The whole form, however long its fields are: what a request may bring is limited for the server."""
    return await request.form(max_fields=10 * FILES_LIMIT, max_part_size=1 << 40)


def _shown(
    opened: Sequence[Opened], *, version: str, message: str = "", write: bool = False, line: int = 0
) -> dict[str, Any]:
    return {
        "opened": opened,
        "version": version,
        "message": message,
        "write": write,
        "line": line,
        "problems": None,
        "problem": None,
        "changed": [],
        "here": [one.draft.path for one in opened],
    }


# --- asking


async def _files(api: Api, version: str) -> dict[str, Any]:
    """The files to choose from: those of the folder, or of a version."""
    listed = (await api.get("/admin/folder/files"))["files"]
    editable = {file["path"]: file for file in listed if file["editable"]}
    if not version:
        return {"files": list(editable.values())[:LISTED], "count": len(editable), "version": ""}
    locked = {file["path"] for file in listed if not file["editable"]}
    found = (await api.get(f"/admin/versions/{segment(version)}/files"))["files"]
    files = [file for file in found if file["path"] not in locked and file["path"].endswith(TEXTS)]
    shown = [
        {**file, "differs": editable.get(file["path"], {}).get("sha256") != file["sha256"]} for file in files[:LISTED]
    ]
    return {"files": shown, "count": len(files), "version": version}


async def _open(api: Api, path: str, version: str) -> Opened:
    """A file to be edited: the version's text where one is named and has it, else the folder's."""
    folder, of_version = await together(
        _file(api, f"/admin/folder/files/{segment(path)}"),
        _file(api, f"/admin/versions/{segment(version)}/files/{segment(path)}") if version else _nothing(),
    )
    data = of_version if of_version is not None else folder
    base = None if folder is None else sha256(folder)
    if data is None:
        return Opened(Draft(path, "", base), is_new=True)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return Opened(Draft(path, "", base), problem={"detail": f"{path} is not text: it cannot be edited here"})
    differs = of_version is not None and of_version != folder
    return Opened(Draft(path, text.replace("\r\n", "\n"), base, "\r\n" in text), differs=differs)


async def _file(api: Api, path: str) -> bytes | None:
    try:
        return (await api.send("GET", path)).content
    except Refused as error:
        if error.code == "unknown-file":
            return None
        raise


async def _nothing() -> None:
    return None


async def _version_text(api: Api, version: str, path: str) -> str:
    return (await api.send("GET", f"/admin/versions/{segment(version)}/files/{segment(path)}")).content.decode()


async def _checked(api: Api, drafts: Sequence[Draft]) -> dict[str, Any]:
    here = [draft.path for draft in drafts]
    try:
        found = await api.post("/admin/check", {"files": {draft.path: draft.written for draft in drafts}})
    except Refused as error:
        return {"problems": None, "problem": error.problem, "here": here}
    return {"problems": found["problems"], "problem": None, "here": here}


async def _build(api: Api, drafts: Sequence[Draft], message: str, *, write: bool) -> Json:
    wanted = {
        "message": message,
        "files": {draft.path: draft.written for draft in drafts},
        "base": {draft.path: draft.base for draft in drafts},
        "write": write,
    }
    made: Json = await api.post("/admin/versions", wanted)
    return made


async def _refused(api: Api, error: Refused, drafts: Sequence[Draft]) -> dict[str, Any]:
    """Why a build was refused. Where a file of the folder changed meanwhile, what it says now: a build after that
    replaces it knowingly.
    """
    found: dict[str, Any] = {"drafts": list(drafts), "problem": error.problem, "problems": None, "changed": []}
    if error.code == "project-problems":
        return {**found, "problem": None, "problems": error.problem.get("problems", []), "failed": True}
    if error.code != "file-changed":
        return found
    now = await asyncio.gather(*(_file(api, f"/admin/folder/files/{segment(draft.path)}") for draft in drafts))
    found["drafts"] = [
        Draft(draft.path, draft.text, None if data is None else sha256(data), draft.crlf)
        for draft, data in zip(drafts, now, strict=True)
    ]
    found["changed"] = [
        {"path": draft.path, "is_gone": data is None, "lines": await asyncio.to_thread(difference, data, draft.text)}
        for draft, data in zip(drafts, now, strict=True)
        if (None if data is None else sha256(data)) != draft.base
    ]
    return found


async def _built(api: Api, id_: str, paths: list[str], bases: list[str]) -> dict[str, Any]:
    here = f"/admin/versions/{segment(id_)}"
    version, routing, folder, files, agents = await together(
        api.get(here),
        routing_of(api),
        api.get("/admin/folder/files"),
        api.get(f"{here}/files"),
        _agents(api, here),
    )
    listed = {file["path"]: file["sha256"] for file in folder["files"]}
    built = {file["path"]: file["sha256"] for file in files["files"]}
    known = dict(zip(paths, bases, strict=False))
    return {
        "version": version,
        "current": routing.get("current"),
        "paths": [path for path in paths if path in built],
        "bases": known,
        "unwritten": [path for path in known if path in built and listed.get(path) != built[path]],
        "graph": _concerned(paths, agents, version["graphs"]),
    }


async def _agents(api: Api, here: str) -> list[Json]:
    try:
        return list((await api.get(f"{here}/agents"))["agents"])
    except Refused:  # a rejected version has none
        return []


def _concerned(paths: Sequence[str], agents: Sequence[Json], graphs: Json) -> str:
    """What to try after an edit: the agent of a prompt, or the graph of a file; nothing where that is not plain."""
    for path in paths:
        for agent in agents:
            if (agent.get("prompt") or {}).get("path") == path and agent["name"] in graphs:
                return str(agent["name"])
        if (name := PurePosixPath(path).stem) in graphs:
            return name
    return ""
