"""A hub on this machine: what huggingface_hub asks of Hugging Face's to fetch and to push."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlparse


class Hub:
    """Repositories by (kind, name): files by revision. `refuses` makes every request fail with a status."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.requests: list[str] = []
        self.refuses: int | None = None
        self.commits: list[dict[str, Any]] = []
        self.url = ""

    def add(self, name: str, files: dict[str, bytes], kind: str = "models", revision: str = "main") -> None:
        """Add a repository, or a revision of it."""
        self.repositories.setdefault((kind, name), {})[revision] = dict(files)

    def find(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | str:
        """Find the commit and the files of a revision; a word for what is missing."""
        revisions = self.repositories.get((kind, name))
        if revisions is None:
            return "RepoNotFound"
        commits = {hash_files(files): files for files in revisions.values()}
        files = revisions.get(revision, commits.get(revision))
        return "RevisionNotFound" if files is None else (hash_files(files), files)


def hash_files(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def hash_blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


_ABOUT = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|preupload|commit)/([^/]+)")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def handle_any(self) -> None:
        hub, path = self.hub, unquote(urlparse(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(f"{self.command} {path}")
        if hub.refuses is not None:
            return self.reply(hub.refuses)
        if path == "/api/validate-yaml":
            return self.reply_json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            hub.repositories.setdefault(("models", name), {"main": {}})
            return self.reply_json({"url": f"{hub.url}/{name}"})
        if found := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|preupload|commit)/([^/]+)(/.*)?", path
        ):
            kind, name, what, revision, _ = found.groups()
            state = hub.find(kind, name, revision)
            if isinstance(state, str):
                return self.reply(404, X_Error_Code=state, X_Error_Message=state)
            commit, files = state
            if what == "revision":
                siblings = [{"rfilename": file} for file in sorted(files)]
                return self.reply_json({"id": name, "sha": commit, "siblings": siblings, "private": False})
            if what == "tree":
                entries = [
                    {"type": "file", "path": f, "size": len(c), "oid": hash_blob(c)} for f, c in sorted(files.items())
                ]
                return self.reply_json(entries)
            if what == "preupload":
                asked = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                return self.reply_json({"files": modes})
            lines = [json.loads(line) for line in body.splitlines() if line]
            hub.commits.append(lines[0]["value"])
            for line in lines[1:]:
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            hub.repositories[kind, name][revision] = files
            return self.reply_json({"commitUrl": f"{hub.url}/{name}/commit/{hash_files(files)}", "commitOid": "1" * 40})
        if found := _FILE.fullmatch(path):
            kind, name, revision, file = "datasets" if found[1] else "models", *found.groups()[1:]
            state = hub.find(kind, name, revision)
            if isinstance(state, str):
                return self.reply(404, X_Error_Code=state)
            commit, files = state
            if file not in files:
                return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            content = files[file]
            return self.reply(200, content, ETag=f'"{hash_blob(content)}"', X_Repo_Commit=commit)
        return self.reply(404)

    do_GET = do_HEAD = do_POST = handle_any


@contextmanager
def serve_hub(cache: Path) -> Iterator[Hub]:
    """Serve an empty hub to huggingface_hub while the block runs; `cache` is the folder of what is fetched."""
    from huggingface_hub import constants

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    replaced = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
    }
    try:
        with patch.multiple(constants, **replaced):
            yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
