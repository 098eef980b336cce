"""What the Hub of the tests tells of its repositories, and the files that it sends."""

import hashlib
import re

import yaml

from support.hub_http import Answering
from support.hub_state import LARGE, Refused, Repository


class Reading(Answering):
    def _at(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        """Return the commit and its files."""
        branch = repository.branch_of(revision)
        if branch is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
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
                if len(content) >= LARGE:
                    entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
                entries[name] = entry
        if folder and not entries:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist")
        return [
            entry for path, entry in entries.items() if recursive or "/" not in path[len(start) :]
        ]

    def _resolve(self, repository: Repository, revision: str, name: str, drop: bool) -> None:
        commit, files = self._at(repository, revision)
        if name not in files:
            raise Refused(404, "EntryNotFound", f"Entry not found: {name}")
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
