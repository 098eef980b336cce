"""Start scripts in several processes: with `accelerate launch`, as a user does, or torchrun."""

import os
import subprocess
import sys

from accelerate import DistributedType, PartialState

from support import ROOT

CONFIGS = ROOT / "examples" / "accelerate"


def environment(**variables: str) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
        **variables,
    }


def launch(
    *command: str, num_processes: int = 2, check: bool = True, joined: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a script or `-m module` with its arguments in several processes on the CPU.

    `joined=False` leaves it to the command to say that it runs on the CPU.
    """
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"),
            *("--config_file", str(CONFIGS / "cpu.yaml")),
            *("--num_processes", str(num_processes), "--main_process_port", "0"),
            *command,
        ],
        capture_output=True,
        text=True,
        env=environment(ACCELERATE_USE_CPU="true") if joined else environment(),
        timeout=400,
    )
    assert not check or finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def launch_with_torch(*command: str, num_processes: int) -> None:
    """Run a script that needs torch alone; torchrun starts faster than `accelerate launch`."""
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", str(num_processes), *command),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=400,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def shard_on_cpu() -> None:
    """Have Accelerate shard on the CPU, too, as torch and gloo can; call it in each process."""
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def leave_together() -> None:
    """End a script: a process that left first would break what the others still hold open.

    The interpreter's own way out now and then aborts, in threads that torch's sharding leaves to
    gloo.
    """
    PartialState().wait_for_everyone()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
