"""A Hub on this machine: the HTTP interface that the real `huggingface_hub` client speaks.

Repositories live in memory. A token is a user's name with `hf_` before it. Trouble is made on
demand with `Hub.fail`.
"""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from support.hub_reading import Reading
from support.hub_state import Hub, Refused
from support.hub_writing import Writing


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


class _Handler(Writing, Reading):
    def handle_any(self) -> None:
        body = self._body()
        self.hub.requests.append((self.command, self.path, dict(self.headers)))
        status = self.hub.trouble(self.command, self.path)
        if status == 0 and self.command != "GET":
            self.close_connection = True
            return
        try:
            if status:
                raise Refused(status, message="The Hub has a problem.")
            parts = urlsplit(self.path)
            self._answer(unquote(parts.path), parse_qs(parts.query), body, drop=status == 0)
        except Refused as refused:
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
            raise Refused(404, "RepoNotFound", "Repository not found")

    def _repository_call(
        self, kind: str, id: str, verb: str | None, rest: str, query: dict, body: bytes
    ) -> None:
        if verb in ("preupload", "commit"):
            repository = self._repository(kind, id, write=True)
            if rest not in repository.branches:
                raise Refused(404, "RevisionNotFound", f"Invalid rev id: {rest}")
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
            raise Refused(404, "EntryNotFound", f"There is no {verb}")
