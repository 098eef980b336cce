"""What GitHub runs is what a contributor runs, with no more rights than it needs."""

import re
import subprocess
import tomllib

import pytest
import yaml
from support import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RIGHTS = {
    ("release", "publish"): {"id-token": "write"},
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
}
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = [
    pytest.param(workflow, name, job, id=f"{workflow}-{name}")
    for workflow, content in WORKFLOWS.items()
    for name, job in content["jobs"].items()
]


def commands(job):
    return [step["run"] for step in job.get("steps", []) if "run" in step]


def test_there_is_one_for_each_purpose():
    assert WORKFLOWS.keys() == {"tests", "weekly", "release", "pages"}
    targets = {command for *_, job in (param.values for param in JOBS) for command in commands(job)}
    wanted = {"check", "docs", "dist", "test", "test-slow", "test-browser", "test-lowest"}
    assert {f"make {target}" for target in wanted | {"test-main"}} <= targets


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
def test_a_job_has_the_rights_that_it_needs(workflow, name, job):
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}
    assert job.get("permissions") == RIGHTS.get((workflow, name))
    text = yaml.safe_dump(job)
    assert "secrets." not in text
    for step in job.get("steps", []):
        if "uses" in step:
            assert re.search(r"@(v\d+|release/v\d+)$", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
    assert "timeout-minutes" in job or "uses" in job


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
def test_a_job_calls_targets_that_there_are(workflow, name, job):
    for command in commands(job):
        if command.startswith("make "):
            dry = ["make", "--dry-run", *command.split()[1:]]
            done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert command.startswith("test -f ")


def test_every_version_of_python_is_tested_from_the_lowest_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = WORKFLOWS["tests"]["jobs"]["newest"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={versions[0]}"
    minors = [int(version.partition(".")[2]) for version in versions]
    assert minors == list(range(minors[0], 15))


def test_every_form_asks_for_the_environment():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))
    assert len(forms) == 3
    for form in forms:
        fields = {field.get("id"): field for field in yaml.safe_load(form.read_text())["body"]}
        assert "clce-hf env" in fields["environment"]["attributes"]["label"]
