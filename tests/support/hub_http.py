"""Requests to the Hub of the tests: reading them, answering them, and who sends them."""

import json
from http.server import BaseHTTPRequestHandler

from support.hub_state import Hub, Refused, Repository


class Answering(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else each answer waits for the client's delayed ACK
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

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

    # ---- who may do what ----

    def _user(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token.startswith("hf_"):
            raise Refused(401, message="Invalid username or password.")
        return token.removeprefix("hf_")

    def _repository(
        self, kind: str, id: str, *, read: bool = False, write: bool = False
    ) -> Repository:
        repository = self.hub.repositories.get((kind, id))
        try:
            is_owner = repository is not None and self._user() == repository.owner
        except Refused:
            is_owner = False
        if repository is None or (repository.private and not is_owner):
            raise Refused(401 if repository is None else 404, "RepoNotFound", "Repo not found")
        if read and repository.gated and not is_owner:
            raise Refused(403, "GatedRepo", f"Access to {id} is restricted. Ask for it.")
        if write and not is_owner:
            raise Refused(403, message="Forbidden: you have no write access.")
        return repository
