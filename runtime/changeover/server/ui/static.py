"""The files of the page: small, packed once, and kept by browsers for as long as they stay as they are."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
FOR_GOOD = "public, max-age=31536000, immutable"  # another content has another address


@dataclass(frozen=True, slots=True)
class StaticFile:
    packed: bytes
    plain: bytes
    media_type: str
    digest: str


class StaticFiles:
    def __init__(self) -> None:
        self._files = {
            path.relative_to(FOLDER).as_posix(): _read(path)
            for path in sorted(FOLDER.rglob("*"))
            if path.suffix in TYPES
        }

    def address(self, name: str) -> str:
        """Below `/ui`; with a mark of the content."""
        return f"static/{name}?{self._files[name].digest}"

    async def answer(self, request: Request) -> Response:
        found = self._files.get(request.path_params["name"])
        if found is None:
            return Response("there is no such file", 404, media_type="text/plain")
        headers = {"Cache-Control": FOR_GOOD, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.media_type)
        return Response(found.plain, headers=headers, media_type=found.media_type)


def _read(path: Path) -> StaticFile:
    data = path.read_bytes()
    return StaticFile(gzip.compress(data, 9), data, TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:12])
