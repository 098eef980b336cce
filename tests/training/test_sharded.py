"""What is measured beside training, and calibration, where FSDP2 shards the model."""

import json
import sys
from pathlib import Path

import pytest
from accelerate import PartialState
from support.launching import launch, leave_together, shard_on_cpu
from support.tiny import Images, config, logged, vit

from clce_hf import CLCETrainer, KNNCallback

FSDP = {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": ["ViTLayer"]}}


def measured(folder, num_processes=1, **fields):
    """Return the k-NN accuracies of a run and after it, and what `calibrate` refuses."""
    fields = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 2, **fields}
    size = 16 // num_processes
    fields |= {"per_device_train_batch_size": size, "per_device_eval_batch_size": 80}
    args = config(folder, learning_rate=1e-2, **fields)
    if args.fsdp:
        shard_on_cpu()
    trainer = CLCETrainer(
        vit(),
        args,
        train_dataset=Images(32),
        eval_dataset=Images(120, seed=1),
        callbacks=[KNNCallback(k=5, max_train_samples=30)],
    )
    trainer.train()
    after = trainer.evaluate()["eval_knn_accuracy"]
    refused = ""
    try:
        trainer.calibrate()
    except ValueError as error:
        refused = str(error)
    assert trainer.is_fsdp_enabled == bool(args.fsdp)
    return {"knn": [*logged(trainer, "eval_knn_accuracy"), after], "refused": refused}


@pytest.mark.slow
def test_neighbors_vote_and_calibrate_refuses_where_weights_are_sharded(tmp_path):
    alone = measured(tmp_path / "alone")
    launch(__file__, str(tmp_path))
    sharded = json.loads((tmp_path / "measured.json").read_text())
    assert sharded.pop("processes") == 2
    assert len(sharded["knn"]) == 4 and len(set(sharded["knn"])) > 1
    assert sharded["knn"] == alone["knn"]
    assert alone["refused"] == ""
    assert "sharded, by FSDP or ZeRO-3: save the model, load it in a trainer" in sharded["refused"]


if __name__ == "__main__":
    found = measured(Path(sys.argv[1]) / "run", 2, **FSDP)
    state = PartialState()
    if state.is_main_process:
        text = json.dumps({**found, "processes": state.num_processes})
        (Path(sys.argv[1]) / "measured.json").write_text(text)
    leave_together()
