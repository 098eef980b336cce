"""What the Hub of the tests knows: repositories in memory, requests, and trouble on demand."""

import hashlib
import re
import uuid
from dataclasses import dataclass, field

LARGE = 20_000
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
    after: int


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

    def fail(
        self, method: str, path: str, status: int = 500, times: int = 10**6, after: int = 0
    ) -> None:
        """Answer `times` requests of this kind with a status; 0 drops the connection.

        The first `after` of them are answered as always.
        """
        self._troubles.append(Trouble(method, re.compile(path), status, times, after))

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
                if trouble.after:
                    trouble.after -= 1
                    continue
                trouble.times -= 1
                return trouble.status
        return None


class Refused(Exception):
    """An answer with an error status, and the code by which the client knows the error."""

    def __init__(self, status: int, code: str = "", message: str = "", **body: str) -> None:
        self.status, self.code = status, code
        self.body = {"error": message or code, **body}
