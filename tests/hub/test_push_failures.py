"""Nothing is lost where the Hub fails."""

import logging
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx
from safetensors.torch import load_file
from support.pushing import TOKEN, make_trainer, repository

# (method, path, status): 0 is a dropped connection. The client tries 5xx and drops again for long.
FAILURES = [
    ("POST", "/preupload/", 403),
    ("POST", "/preupload/", 401),
    ("POST", "/validate-yaml", 400),
    ("POST", "/objects/batch", 403),
    ("PUT", "/lfs/", 403),
    ("POST", "/verify", 400),
    ("POST", "/commit/", 409),
    ("POST", "/commit/", 413),
    ("POST", "/commit/", 500),
    ("POST", "/commit/", 0),
    ("POST", "/repos/create", 403),
    ("POST", "/repos/create", 500),
    ("POST", "/repos/create", 0),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("trained"), projection_dim=8)
    trainer.train()
    return trainer


@pytest.mark.parametrize(("method", "path", "status"), FAILURES)
def test_a_failed_upload_loses_nothing(hub, trained, caplog, method, path, status):
    folder = Path(trained.args.output_dir)
    for file in folder.glob("*.*"):
        file.unlink()
    trained.hub_model_id = None
    hub.fail(method, path, status)
    with pytest.raises((HfHubHTTPError, httpx.HTTPError, ValueError, RuntimeError)) as failure:
        trained.push_to_hub()
    saved = load_file(folder / "model.safetensors")
    assert all(
        torch.equal(saved[k], v) for k, v in trained.model.state_dict().items() if k in saved
    )
    for text in (caplog.text, str(failure.value)):
        assert TOKEN not in text and str(folder) not in text
    assert "nothing is lost" in caplog.text and "push_to_hub" in caplog.text
    hub.recover()
    trained.push_to_hub()
    assert {"model.safetensors", "README.md"} <= repository(hub).files.keys()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/preupload/", 503), ("PUT", "/lfs/", 500), ("PUT", "/lfs/", 0)],
)
def test_a_temporary_failure_is_not_noticed(hub, trained, method, path, status):
    trained.hub_model_id = None
    hub.fail(method, path, status, times=1)
    trained.push_to_hub()
    assert {"model.safetensors", "README.md"} <= repository(hub).files.keys()


@pytest.mark.parametrize(("path", "status"), [("/preupload/", 403), ("/commit/", 409)])
def test_uploads_that_fail_in_the_background_are_logged(hub, tmp_path, caplog, path, status):
    trainer = make_trainer(
        tmp_path, push_to_hub=True, hub_strategy="all_checkpoints", save_strategy="epoch"
    )
    hub.fail("POST", path, status)
    trainer.train()
    assert trainer.state.global_step == 4
    told = [record for record in caplog.records if record.name == "clce_hf.hub.publishing"]
    assert told and all(record.levelno == logging.ERROR for record in told)
    assert "nothing is lost" in caplog.text and TOKEN not in caplog.text
    assert load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    hub.recover()
    trainer.push_to_hub()
    assert "model.safetensors" in repository(hub).files
