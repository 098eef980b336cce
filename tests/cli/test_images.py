"""Images and folders as they are found, through the command line."""

import multiprocessing

import pytest
from support.commands import QUICK, train
from support.tiny import CLASSES

from clce_hf.cli.main import main


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_command_line_ends_in_one_line(checkpoint, tmp_path, workers):
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    flags = ["--train_dir", str(tmp_path / "photos"), "--model_name_or_path", checkpoint]
    flags += ["--train_val_split", "0.5", "--per_device_train_batch_size", "4"]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("train", *flags, "--output_dir", str(tmp_path / "run")),
                *("--dataloader_num_workers", workers, *QUICK),
            ]
        )
    [line] = str(ended.value.code).splitlines()
    assert line.startswith(f"clce-hf: error: The image {tmp_path / 'photos'}")
    assert "cannot be read: it is no image" in line


@pytest.fixture
def forkserver():
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_workers_that_are_not_forked(folder, checkpoint, tmp_path, forkserver):
    flags = ["--dataloader_num_workers", "1", "--mixup_alpha", "0.2", "--rand_augment", "true"]
    train(folder, checkpoint, tmp_path, *flags, "--do_eval", "false", "--eval_strategy", "no")
    assert (tmp_path / "model.safetensors").is_file()
