import json
from pathlib import Path

import pytest
import torch
from support import gather_cases
from support.launching import launch_with_torch

from clce_hf import label_aware_contrastive_loss
from clce_hf.loss.distributed import contrastive_term, gather_rows


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gathered")
    launch_with_torch(gather_cases.__file__, str(folder), num_processes=3)
    return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.parametrize("variant", ["in", "out"])
@pytest.mark.parametrize("shares", [*gather_cases.SHARES, *gather_cases.SOFT_SHARES])
def test_uneven_processes_contrast_as_one(shares, variant, errors):
    for of_rank in errors:
        assert of_rank[f"{shares}, {variant}"] < 1e-12


def test_one_process_has_all_there_is():
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 2, -100])
    (stacked,), first = gather_rows(embeddings)
    assert stacked is embeddings and first == 0
    hyperparameters = {"temperature": 0.3, "beta": 0.5, "variant": "out"}
    for gather in (False, True):
        loss, num_positives, _ = contrastive_term(
            embeddings, labels, **hyperparameters, gather=gather
        )
        assert loss == label_aware_contrastive_loss(embeddings, labels, **hyperparameters)
        assert num_positives.tolist() == [1, 1, 1, 1, 0, 0]
