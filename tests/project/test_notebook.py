"""The notebook runs from its first cell to its last, as a user would run it."""

import nbformat
import pytest
from nbclient import NotebookClient
from support import ROOT

pytestmark = pytest.mark.early

NOTEBOOK = ROOT / "examples" / "finetune_vit.ipynb"


@pytest.mark.slow
def test_the_notebook(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    lines = [line.split() for line in printed.splitlines() if line.endswith("%")]
    rates = {name: float(rate[:-1]) for name, rate in lines}
    assert rates["CLCE"] > 85 and rates["cross-entropy"] > 50
    pushed = hub.repositories["model", "ann/digits-clce"].files
    assert {"model.safetensors", "README.md", "embeddings.png"} <= pushed.keys()
    last = notebook.cells[-1].outputs[-1]
    assert "'label': '7'" in last.data["text/plain"]
