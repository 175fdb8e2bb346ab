"""The web page: static files that hold no data, so they need no key."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

__all__ = ["PAGE_PATHS", "router"]

_FOLDER: Final = Path(__file__).parent.parent / "dashboard"
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PAGE_PATHS: Final = frozenset(_FILES)
# Nothing but this service's own files, and no page may frame it.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


async def _serve(request: Request) -> Response:
    name, media_type = _FILES[request.url.path]
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return FileResponse(_FOLDER / name, media_type=media_type, headers=headers)


for path in _FILES:
    router.add_route(path, _serve, methods=["GET"])
