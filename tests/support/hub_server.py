"""A Hub on this machine: the HTTP interface that the real `huggingface_hub` client speaks.

Repositories live in memory. A token is a user's name with `hf_` before it. Trouble is made on
demand with `Hub.fail`.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

_LARGE = 20_000
"""Bytes from which a file goes to large file storage, as weights do on the Hub."""


@dataclass
class Repository:
    kind: str
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[str] = field(default_factory=list)
    # The client's cache would take one repository for another of the same name and revision.
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.branches["main"]

    @property
    def sha(self) -> str:
        return self.head("main")

    def head(self, branch: str) -> str:
        """The last commit of a branch; one that is named by a hash stands for a commit."""
        if re.fullmatch("[0-9a-f]{40}", branch):
            return branch
        return hashlib.sha1(f"{self.nonce} {branch} {len(self.commits)}".encode()).hexdigest()

    def branch_of(self, revision: str) -> str | None:
        """The branch of that name, or whose last commit it is."""
        names = (name for name in self.branches if revision in (name, self.head(name)))
        return next(names, None)


@dataclass
class Trouble:
    method: str
    path: re.Pattern[str]
    status: int
    times: int


class Hub:
    """What the server knows, and the requests it saw as (method, path, headers)."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""
        self._troubles: list[Trouble] = []

    def create(self, id: str, kind: str = "model", private: bool = False) -> Repository:
        return self.repositories.setdefault((kind, id), Repository(kind, id, private))

    def fail(self, method: str, path: str, status: int = 500, times: int = 10**6) -> None:
        """Answer the next `times` requests of this kind with a status; 0 drops the connection."""
        self._troubles.append(Trouble(method, re.compile(path), status, times))

    def recover(self) -> None:
        self._troubles.clear()

    def clear(self) -> None:
        self.repositories.clear()
        self.large_files.clear()
        self.requests.clear()
        self.recover()

    def trouble(self, method: str, path: str) -> int | None:
        for trouble in self._troubles:
            if trouble.times and trouble.method == method and trouble.path.search(path):
                trouble.times -= 1
                return trouble.status
        return None


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **body: str) -> None:
        self.status, self.code = status, code
        self.body = {"error": message or code, **body}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self._body()
        self.hub.requests.append((self.command, self.path, dict(self.headers)))
        status = self.hub.trouble(self.command, self.path)
        if status == 0 and self.command != "GET":
            self.close_connection = True
            return
        try:
            if status:
                raise _Refused(status, message="The Hub has a problem.")
            parts = urlsplit(self.path)
            self._answer(unquote(parts.path), parse_qs(parts.query), body, drop=status == 0)
        except _Refused as refused:
            # What follows a request's unread answer must not be taken for another request.
            self._send(
                refused.status,
                json.dumps(refused.body).encode(),
                {"X-Error-Code": refused.code, "X-Error-Message": str(refused.body["error"])},
            )

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _answer(self, path: str, query: dict, body: bytes, drop: bool) -> None:
        if path == "/api/whoami-v2":
            name = self._user()
            self._json({"type": "user", "name": name, "fullname": name, "orgs": [], "auth": {}})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif path.startswith("/lfs/"):
            self._large_file(path.split("/")[2], body)
        elif match := re.fullmatch(r"/(datasets/)?(.+)\.git/info/lfs/objects/batch", path):
            self._repository("dataset" if match[1] else "model", match[2], write=True)
            self._large_batch(json.loads(body)["objects"])
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository = self._repository("dataset" if match[1] else "model", match[2], read=True)
            self._resolve(repository, match[3], match[4], drop)
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/([^/]+)(/.*)?)?", path):
            kind, id, verb, rest = match.groups()
            self._repository_call(kind, id, verb, (rest or "/main")[1:], query, body)
        else:
            raise _Refused(404, "RepoNotFound", "Repository not found")

    def _repository_call(
        self, kind: str, id: str, verb: str | None, rest: str, query: dict, body: bytes
    ) -> None:
        if verb in ("preupload", "commit"):
            repository = self._repository(kind, id, write=True)
            if rest not in repository.branches:
                raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {rest}")
            if verb == "preupload":
                self._preupload(json.loads(body)["files"])
            else:
                self._commit(repository, rest, body)
            return
        if verb == "branch":
            repository = self._repository(kind, id, write=True)
            repository.branches[rest] = dict(repository.files)
            self._json({})
            return
        repository = self._repository(kind, id)
        if verb is None or verb == "revision":
            self._info(repository, rest)
        elif verb == "tree":
            revision, _, folder = rest.partition("/")
            self._json(self._tree(repository, revision, folder, bool(query.get("recursive"))))
        elif verb == "paths-info":
            asked = json.loads(body)["paths"]
            entries = self._tree(repository, rest, "", True)
            self._json([entry for entry in entries if entry["path"] in asked])
        else:
            raise _Refused(404, "EntryNotFound", f"There is no {verb}")

    # ---- who may do what ----

    def _user(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token.startswith("hf_"):
            raise _Refused(401, message="Invalid username or password.")
        return token.removeprefix("hf_")

    def _repository(
        self, kind: str, id: str, *, read: bool = False, write: bool = False
    ) -> Repository:
        repository = self.hub.repositories.get((kind, id))
        try:
            is_owner = repository is not None and self._user() == repository.owner
        except _Refused:
            is_owner = False
        if repository is None or (repository.private and not is_owner):
            raise _Refused(401 if repository is None else 404, "RepoNotFound", "Repo not found")
        if read and repository.gated and not is_owner:
            raise _Refused(403, "GatedRepo", f"Access to {id} is restricted. Ask for it.")
        if write and not is_owner:
            raise _Refused(403, message="Forbidden: you have no write access.")
        return repository

    # ---- writing ----

    def _create(self, asked: dict) -> None:
        user = self._user()
        owner = asked.get("organization") or user
        id, kind = f"{owner}/{asked['name']}", asked.get("type", "model")
        if owner != user:
            raise _Refused(403, message=f"You may not create repositories of {owner}.")
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{id}"
        if (kind, id) in self.hub.repositories:
            raise _Refused(409, message="You already created this repo", url=url)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.create(id, kind, bool(private))
        self._json({"url": url, "id": id, "name": id})

    def _validate(self, content: str) -> None:
        """Refuse metadata that breaks a rule which the Hub's own validator is known to have."""
        data = yaml.safe_load(content.split("---")[1])
        errors = []
        for result in (
            entry for index in data.get("model-index", []) for entry in index["results"]
        ):
            for key in ("task", "dataset", "metrics"):
                if not result.get(key):
                    errors.append(f'"model-index[0].results[0].{key}" is required')
        for key in ("tags", "datasets", "metrics"):
            if not isinstance(data.get(key, []), list):
                errors.append(f'"{key}" must be an array')
        for key in ("license", "pipeline_tag", "library_name"):
            if not isinstance(data.get(key, ""), str):
                errors.append(f'"{key}" must be a string')
        bases = data.get("base_model", [])
        for base in [bases] if isinstance(bases, str) else bases:
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base):
                errors.append('"base_model" is not a valid model id')
        messages = [{"message": message} for message in errors]
        self._json({"errors": messages, "warnings": []}, 400 if errors else 200)

    def _preupload(self, files: list[dict]) -> None:
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] >= _LARGE else "regular",
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
            }
        )

    def _large_batch(self, objects: list[dict]) -> None:
        answers = []
        for wanted in objects:
            href = f"{self.hub.url}/lfs/{wanted['oid']}"
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large_files:
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def _large_file(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                raise _Refused(400, message="The content does not match its hash.")
            self.hub.large_files[oid] = body
        elif oid not in self.hub.large_files:
            raise _Refused(404, message="There is no such object.")
        self._json({})

    def _commit(self, repository: Repository, branch: str, body: bytes) -> None:
        files = dict(repository.branches[branch])
        summary = ""
        for line in filter(None, body.split(b"\n")):
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                summary = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        repository.branches[branch] = files
        repository.commits.append(summary)
        commit = repository.head(branch)
        url = f"{self.hub.url}/{repository.id}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    # ---- reading ----

    def _at(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        """Return the commit and its files."""
        branch = repository.branch_of(revision)
        if branch is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository.head(branch), repository.branches[branch]

    def _info(self, repository: Repository, revision: str) -> None:
        commit, files = self._at(repository, revision)
        card = (
            yaml.safe_load(files.get("README.md", b"").decode().split("---\n")[1])
            if (files.get("README.md", b"").startswith(b"---\n"))
            else {}
        )
        tags = [*card.get("tags", [])]
        if "license" in card:
            tags.append(f"license:{card['license']}")
        self._json(
            {
                "id": repository.id,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": tags,
                "cardData": card,
                "siblings": [{"rfilename": name} for name in files],
            }
        )

    def _tree(
        self, repository: Repository, revision: str, folder: str, recursive: bool
    ) -> list[dict]:
        entries: dict[str, dict] = {}
        start = f"{folder}/" if folder else ""
        for name, content in self._at(repository, revision)[1].items():
            if not name.startswith(start):
                continue
            *folders, _ = name.removeprefix(start).split("/")
            for depth in range(len(folders)):
                path = start + "/".join(folders[: depth + 1])
                entries[path] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            if recursive or not folders:
                oid = hashlib.sha256(content).hexdigest()
                entry: dict = {"type": "file", "oid": oid, "size": len(content), "path": name}
                if len(content) >= _LARGE:
                    entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
                entries[name] = entry
        if folder and not entries:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
        return [
            entry for path, entry in entries.items() if recursive or "/" not in path[len(start) :]
        ]

    def _resolve(self, repository: Repository, revision: str, name: str, drop: bool) -> None:
        commit, files = self._at(repository, revision)
        if name not in files:
            raise _Refused(404, "EntryNotFound", f"Entry not found: {name}")
        content = files[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        headers["Accept-Ranges"] = "bytes"
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first = int(wanted[1])
            last = min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self._send(status, content, headers, drop)

    # ---- HTTP ----

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, answer: object, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], drop: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if drop:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)
