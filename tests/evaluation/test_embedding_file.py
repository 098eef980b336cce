import pyarrow.parquet as pq
import pytest
import torch
from datasets import Features, Value, load_dataset

from clce_hf.evaluation.embedding_file import EmbeddingFile

FEATURES = Features({"row": Value("int64")})


def rows(start, n):
    return {"row": list(range(start, start + n))}, torch.arange(start, start + 2.0 * n).view(n, 2)


def test_many_rows_are_written_in_parts(tmp_path):
    path = tmp_path / "e.parquet"
    with EmbeddingFile(path, FEATURES) as file:
        for start in range(0, 9000, 100):
            file.add(*rows(start, 100))
        assert not path.exists() and (tmp_path / "e.parquet.unfinished").exists()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert pq.ParquetFile(path).num_row_groups == 3
    written = load_dataset("parquet", data_files=str(path), split="train")
    assert written["row"][:] == list(range(9000))
    assert written[8999]["embedding"] == [8900.0 + 198, 8900.0 + 199]


def test_nothing_is_left_of_a_file_that_is_not_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt), EmbeddingFile(tmp_path / "e.parquet", FEATURES) as file:
        file.add(*rows(0, 5000))
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_who_adds_nothing_leaves_the_file_of_another_alone(tmp_path):
    path = tmp_path / "e.parquet"
    with EmbeddingFile(path, FEATURES) as file:
        file.add(*rows(0, 5000))
        with EmbeddingFile(path, FEATURES):  # of a process that only shares the images
            pass
        file.add(*rows(5000, 10))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert pq.read_metadata(path).num_rows == 5010
