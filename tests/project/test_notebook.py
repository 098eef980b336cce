"""The notebook runs from its first cell to its last, as a user would run it."""

import re

import nbformat
import pytest
from mkdocs.config import load_config
from mkdocs.structure.files import get_files
from nbclient import NotebookClient
from support import ROOT

pytestmark = pytest.mark.early

NOTEBOOK = ROOT / "examples" / "finetune_vit.ipynb"


def printed(cell):
    """What a cell prints, and what it shows last as text."""
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.get("outputs", [])
    )


@pytest.mark.slow
def test_the_notebook(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}})
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        told = "".join(map(printed, notebook.cells))
        lines = [line.split() for line in told.splitlines() if line.endswith("%")]
        rates = {name: float(rate[:-1]) for name, rate in lines}
        assert rates["CLCE"] > 80 and rates["cross-entropy"] > 50
        ((before, after),) = re.findall(r"negative_log_likelihood +(\S+) -> (\S+)", told)
        assert 0 < float(after) <= float(before)
        assert "PIL.Image" in told and "'label': " in printed(notebook.cells[-1])
        # Nothing is pushed until one says so; then the model is, and comes from the Hub.
        assert not hub.repositories
        (first,) = [i for i, cell in enumerate(notebook.cells) if "PUSH = False" in cell.source]
        notebook.cells[first].source = notebook.cells[first].source.replace("False", "True", 1)
        for index in range(first, len(notebook.cells)):
            client.execute_cell(notebook.cells[index], index)
    pushed = hub.repositories["model", "ann/digits-clce"].files
    assert {"model.safetensors", "README.md", "embeddings.png"} <= pushed.keys()
    assert "## Calibration" in pushed["README.md"].decode()
    assert f"{hub.url}/ann/digits-clce" in "".join(map(printed, notebook.cells))
    assert any("ann/digits-clce/resolve" in path for method, path, _ in hub.requests)


@pytest.mark.parametrize("repository", [None, "ann/clce"])
def test_its_page_leads_to_colab_where_the_repository_is_known(repository, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    if repository is not None:
        monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    config = load_config(str(ROOT / "mkdocs.yml"))
    files = config.plugins.run_event("files", get_files(config), config=config)
    page = files.get_file_from_path("source/examples/finetune_vit.ipynb.md").content_string
    assert ("colab.research" in page) == (repository is not None)
    if repository is not None:
        address = "https://colab.research.google.com/github/ann/clce/blob/main"
        badge = "[![Open in Colab](../../badges/colab.svg)]"
        assert f"{badge}({address}/examples/finetune_vit.ipynb)" in page
        assert files.get_file_from_path("badges/colab.svg") is not None
