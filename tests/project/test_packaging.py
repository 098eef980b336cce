"""What is declared about the package is what it is."""

import ast
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from hatchling.build import build_sdist, build_wheel
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGE = ROOT / "clce_hf"
MODULES = sorted(PACKAGE.rglob("*.py"))


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


NEEDED = names(PROJECT["dependencies"])
EXTRAS = names(
    line
    for extra, lines in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for line in lines
)
OWNERS = {name: canonicalize_name(owners[0]) for name, owners in packages_distributions().items()}


def distributions(statements):
    """Those of the packages outside the standard library that the statements import."""
    packages = set()
    for node in statements:
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            packages.add(node.module.partition(".")[0])
    return {OWNERS[name] for name in packages - sys.stdlib_module_names - {"clce_hf"}}


@pytest.fixture(scope="module")
def trees():
    return {file: ast.parse(file.read_text()) for file in MODULES}


def test_every_imported_package_is_declared(trees):
    for file, tree in trees.items():
        assert distributions(ast.walk(tree)) <= NEEDED | EXTRAS, file


def test_no_module_needs_an_extra_to_be_imported(trees):
    for file, tree in trees.items():
        assert distributions(tree.body) <= NEEDED, file


def test_every_package_that_is_always_installed_is_imported(trees):
    assert set().union(*(distributions(ast.walk(tree)) for tree in trees.values())) >= NEEDED


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == citation["version"] == version("clce_hf")


def test_the_wheel_holds_every_file_of_the_package(tmp_path, monkeypatch):
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tmp_path)
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "clce_hf", ignore=without_caches)
    monkeypatch.chdir(tmp_path)
    wheel = zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path)))
    packed = {Path(name) for name in wheel.namelist() if name.startswith("clce_hf/")}
    files = {file.relative_to(tmp_path) for file in tmp_path.glob("clce_hf/**/*") if file.is_file()}
    assert packed == files
    assert Path("clce_hf/py.typed") in packed


@pytest.mark.slow
def test_pypi_takes_what_is_built(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    built = [tmp_path / build(str(tmp_path)) for build in (build_wheel, build_sdist)]
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    with tarfile.open(built[1]) as archive:
        packed = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    for file in ("mkdocs.yml", "website/site.css", ".github/workflows/tests.yml", "docs/gains.svg"):
        assert Path(file) in packed


def test_the_source_distribution_has_what_tests_and_site_are_made_of():
    targets = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    included = {entry.removeprefix("/") for entry in targets["sdist"]["include"]}
    assert {file.name for file in ROOT.glob("*.md")} <= included
    folders = {"clce_hf", "tests", "benchmarks", "examples", "docs", "website", ".ci", ".github"}
    assert included >= folders | {"mkdocs.yml", "Makefile"}


def test_the_extra_all_is_all_that_users_install():
    extras = PROJECT["optional-dependencies"]
    (everything,) = [Requirement(line) for line in extras["all"]]
    assert everything.name == PROJECT["name"]
    assert everything.extras == extras.keys() - {"all", "dev"}


def test_the_hooks_before_a_commit_are_what_make_check_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    checks = subprocess.run(
        ["make", "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    run = [shlex.split(line) for line in checks.splitlines()]
    assert len(hooks) == 2
    for hook in hooks:
        assert any(line[: len(hook["entry"].split())] == hook["entry"].split() for line in run)
