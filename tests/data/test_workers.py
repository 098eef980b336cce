"""Workers of a data loader that are not forked, as on macOS, on Windows and in Python 3.14."""

import multiprocessing

import pytest
from support.tiny import NUM_CLASSES, config, vit
from transformers import ViTImageProcessor

from clce_hf import CLCETrainer
from clce_hf.data import (
    ImageFolders,
    load_splits,
    mix_training,
    training_rows,
    with_images,
)


@pytest.fixture
def spawn():
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_training_in_spawned_workers(folder, tmp_path, spawn):
    train, _ = load_splits(ImageFolders({"train": str(folder / "train")}), max_train_samples=8)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    rows, collator = mix_training(training_rows(processor), NUM_CLASSES, 0.2, 1.0)
    trainer = CLCETrainer(
        vit(),
        config(tmp_path, max_steps=1, remove_unused_columns=False, dataloader_num_workers=1),
        data_collator=collator,
        train_dataset=with_images(train, rows),
    )
    trainer.train()
    assert trainer.state.global_step == 1
