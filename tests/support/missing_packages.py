"""Run scripts as on a machine where some packages are not installed."""

import subprocess
import sys

from support.launching import environment


def run_without(
    packages: list[str], script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own that cannot import the packages."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages}))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + script, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=600,
    )
