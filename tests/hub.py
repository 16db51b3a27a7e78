"""A stand-in for the Hugging Face Hub on this machine: what its client asks for to write a model and to read it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import yaml

TOKENS = {"hf_writer": "user", "hf_other": "somebody"}
"""Token -> who has it, and may write in a place of that name."""


@dataclass
class Repo:
    """A model.

    Args:
        private: Whether its owner alone sees it.
        files: By name.
        large: The names of those that were sent apart.
    """

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """Answers on a port of its own until it is closed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.sent: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.unknown: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self._answer(
            (r"/api/models/([^/]+/[^/]+)(?:/revision/\w+)?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/(\w+)", self._tree),
            (r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", self._resolve),
            (r"/api/agent-harnesses", lambda: self._send(404, {})),  # of no use here; the client goes on without
        )

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
        )

    def do_PUT(self) -> None:
        self._answer((r"/large/(\w+)", self._receive))

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *routes) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                answer(*match.groups())
                return
        self.server.unknown.append(f"{self.command} {self.path}")
        self._send(501, {"error": "not part of the stand-in"})

    @property
    def user(self) -> str | None:
        return TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _send(self, status: int, content: object, **headers: object) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(data)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, text: str, code: str = "") -> None:
        self._send(status, {"error": text}, **({"X_Error_Code": code} if code else {}), X_Error_Message=text)

    def _repo(self, name: str, to_write: bool = False) -> Repo | None:
        repo = self.server.repos.get(name)
        owner = name.split("/")[0]
        if repo is None or (repo.private and self.user != owner):
            self._refuse(404 if self.user else 401, "Repository not found", "RepoNotFound")
            return None
        if to_write and self.user != owner:
            self._refuse(403, "You don't have the rights to write here")
            return None
        return repo

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if self.user is None:
            self._refuse(401, "Invalid credentials in Authorization header")
        elif self.user != asked["organization"]:
            self._refuse(403, f"You don't have the rights to create a model under {asked['organization']}")
        elif name in self.server.repos:
            self._send(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
        else:
            self.server.repos[name] = Repo(asked.get("visibility") == "private")
            self._send(200, {"url": f"{self.server.url}/{name}"})

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        front = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        metadata = yaml.safe_load(front[1]) if front else None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("tags"), list):
            self._send(400, {"errors": [{"message": "no metadata"}], "warnings": []})
        else:
            self._send(200, {"errors": [], "warnings": []})

    def _preupload(self, name: str) -> None:
        if self._repo(name, to_write=True):
            files = json.loads(self.body)["files"]
            large = (".safetensors", ".gif", ".png")
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(large) else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._send(200, {"files": modes})

    def _batch(self, name: str) -> None:
        if self._repo(name, to_write=True):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/large/{each['oid']}"}}}
                for each in json.loads(self.body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})

    def _receive(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.sent[oid] = self.body
        self._send(200, {})

    def _commit(self, name: str) -> None:
        repo = self._repo(name, to_write=True)
        if repo is None:
            return
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                repo.files[value["path"]] = self.server.sent[value["oid"]]
                repo.large.add(value["path"])
        url = f"{self.server.url}/{name}/commit/{repo.commit}"
        self._send(200, {"commitUrl": url, "commitOid": repo.commit})

    def _info(self, name: str) -> None:
        if repo := self._repo(name):
            files = [{"rfilename": file} for file in repo.files]
            self._send(200, {"id": name, "sha": repo.commit, "private": repo.private, "siblings": files, "tags": []})

    def _tree(self, name: str, commit: str) -> None:
        if repo := self._repo(name):
            files = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in repo.files.items()
            ]
            self._send(200, files)

    def _resolve(self, name: str, commit: str, file: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        if commit not in ("main", repo.commit) or file not in repo.files:
            self._refuse(404, "Entry not found", "EntryNotFound")
            return
        content = repo.files[file]
        self._send(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=repo.commit)
