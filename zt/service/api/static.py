"""Static files below `/app`, when `enableWebServer` is set (ch. 06, 3.12)."""

import logging
import mimetypes
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from zt.service.home import Home

log = logging.getLogger("zt.api")

FOLDER = "app"
WORDS = re.compile(r"[A-Za-z0-9_|-]+(/[A-Za-z0-9_|-]+)*")
DEEP = re.compile(r"([A-Za-z0-9_|-]+)/([A-Za-z0-9_|/-]+/)?")
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html"}


def static_routes(home: Home, enabled: bool) -> list[BaseRoute]:
    """The route, if the web server is wanted; its folder is made when it is missing."""
    if not enabled:
        return []
    folder = home / FOLDER
    if not folder.is_dir():
        log.warning("Mounting app directory failed. Creating it. Path: /app - Dir: %s", folder)
        folder.mkdir(mode=0o755)
    files = StaticFiles(folder)
    return [Route("/app", files.serve), Route("/app/{path:path}", files.serve)]


class StaticFiles:
    """Files of one folder, and of nothing outside of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    async def serve(self, request: Request) -> Response:
        path = str(request.path_params.get("path", ""))
        if ".." in path.split("/"):
            return Response(status_code=404)
        if path == "" or path.endswith("/"):
            found = self._file(f"{path}index.html")
            if found is None and (match := DEEP.fullmatch(path)):
                # A route inside of a single-page application.
                found = self._file(f"{match[1]}/index.html")
                return found or Response(status_code=500)
            return found or Response(status_code=404)
        found = self._file(path)
        if found is not None:
            return found
        if WORDS.fullmatch(path):
            return self._file(f"{path}.html") or Response(
                status_code=301, headers={"location": f"/app/{path}/"}
            )
        return Response(status_code=404)

    def _file(self, name: str) -> Response | None:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            return None
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
        headers = {"content-type": kind or "application/octet-stream"}
        return Response(path.read_bytes(), headers=headers)
