"""What `clce-hf env` prints, and what it keeps to itself."""

import getpass
import platform
import socket
import subprocess
import sys

import pytest
import torch
import transformers
import yaml
from support import ROOT
from support.launching import environment

from clce_hf.cli.main import main


def facts(printed):
    return dict(line.removeprefix("- ").split(": ", 1) for line in printed.splitlines())


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """Settings of which some say who runs it and where."""
    home = tmp_path_factory.mktemp("hf_home_of_ann")
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP",
        "num_processes": 2,
        "num_machines": 1,
        "machine_rank": 0,
        "mixed_precision": "bf16",
        "main_process_ip": "10.1.2.3",
        "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": False},
    }
    (home / "accelerate").mkdir()
    (home / "accelerate" / "default_config.yaml").write_text(yaml.safe_dump(config))
    (home / "token").write_text("hf_of_the_file")
    secrets = {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": "wandb_secret", "MASTER_ADDR": "10.1.2.4"}
    variables = {"HF_HOME": str(home), "ACCELERATE_MIXED_PRECISION": "bf16", **secrets}
    command = [sys.executable, "-m", "clce_hf", "env"]
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, home


def test_versions_and_device(capsys):
    main(["env"])
    shown = facts(capsys.readouterr().out)
    assert shown["torch"] == torch.__version__
    assert shown["transformers"] == transformers.__version__
    assert shown["Python"].startswith(platform.python_version())
    assert shown["clce_hf"].startswith("0.") and shown["deepspeed"]
    assert shown["processes"] == "1 (NO)"
    assert torch.cuda.is_available() or shown["device"].startswith("CPU")


def test_settings_of_accelerate_that_matter(private):
    shown = facts(private[0])
    assert shown["Accelerate's config file, distributed_type"] == "FSDP"
    assert shown["Accelerate's config file, num_processes"] == "2"
    of_fsdp = shown["Accelerate's config file, fsdp_config"]
    assert of_fsdp == "fsdp_version 2, fsdp_offload_params False"
    assert shown["mixed precision"] == shown["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_nothing_says_whose_machine_it_is(private):
    printed, home = private
    hidden = ["hf_secret", "wandb_secret", "hf_of_the_file", "10.1.2", str(home), home.name]
    hidden += [str(ROOT), socket.gethostname(), sys.prefix]
    hidden += [getpass.getuser()] if len(getpass.getuser()) > 4 else []
    assert not [word for word in hidden if word in printed]
    assert "/" not in printed


def test_help_and_flags_that_it_has_not(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["env", "--help"])
    assert ended.value.code == 0 and "bug report" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        main(["env", "--output_dir", "runs"])
    assert refused.value.code == 2
