"""What the Hub of the tests does with repositories, files and commits that are pushed."""

import base64
import hashlib
import json
import re

import yaml

from support.hub_http import Answering
from support.hub_state import LARGE, Refused, Repository


class Writing(Answering):
    def _create(self, asked: dict) -> None:
        user = self._user()
        owner = asked.get("organization") or user
        id, kind = f"{owner}/{asked['name']}", asked.get("type", "model")
        if owner != user:
            raise Refused(403, message=f"You may not create repositories of {owner}.")
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{id}"
        if (kind, id) in self.hub.repositories:
            raise Refused(409, message="You already created this repo", url=url)
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
                        "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
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
                raise Refused(400, message="The content does not match its hash.")
            self.hub.large_files[oid] = body
        elif oid not in self.hub.large_files:
            raise Refused(404, message="There is no such object.")
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
