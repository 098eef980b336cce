"""Print the lowest declared version of each requirement, as constraints for pip.

Tools for developers (the extra `dev`) are left out: users never install them. Names given as
arguments are left out, too, for a machine that cannot get their lowest version:

    python .ci/lowest_versions.py torch torchvision > constraints.txt
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest_versions(left_out: set[str]) -> list[str]:
    """Return a line `name==version` for each requirement."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[name] for name in extras if name != "dev")]
    pins = {}
    for requirement in (Requirement(line) for lines in lists for line in lines):
        if requirement.name == project["name"]:
            continue  # the extra that is all the others
        (bound,) = requirement.specifier
        assert bound.operator == ">=", f"{requirement}: say the lowest version with >="
        name = canonicalize_name(requirement.name)
        assert pins.setdefault(name, bound.version) == bound.version, f"two bounds of {name}"
    return [f"{name}=={version}" for name, version in pins.items() if name not in left_out]


if __name__ == "__main__":
    print(*lowest_versions({canonicalize_name(name) for name in sys.argv[1:]}), sep="\n")
