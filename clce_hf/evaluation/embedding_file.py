"""A Parquet file of embeddings, as `datasets` loads it, written part by part."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value
from torch import Tensor

_ROWS_AT_A_TIME = 4096
"""Rows of a row group; so many are held in memory."""


class EmbeddingFile:
    """Takes rows and their embeddings within `with`, and is there as a whole or not at all.

    Args:
        path: of the file. One that is there is replaced at the end.
        features: of the columns beside `embedding`, which becomes a list of float32 of fixed size.
    """

    def __init__(self, path: Path, features: Features) -> None:
        self._path = path
        self._unfinished = path.with_name(f"{path.name}.unfinished")
        self._features = features
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._write()
            if self._writer is not None:
                self._writer.close()
                if kind is None:
                    self._unfinished.replace(self._path)
        finally:
            # Who wrote nothing leaves it alone: another process may be writing it.
            if self._writer is not None:
                self._unfinished.unlink(missing_ok=True)

    def add(self, columns: Mapping[str, Sequence[Any]], embeddings: Tensor) -> None:
        """Add rows.

        Args:
            columns: n values of each column.
            embeddings: floating point, shape (n, d), d the same each time.
        """
        vector = List(Value("float32"), length=embeddings.shape[1])
        # With the features, which `datasets` reads again.
        schema = Features({**self._features, "embedding": vector}).arrow_schema
        flat = pa.array(embeddings.float().numpy().reshape(-1))
        arrays = [pa.array(columns[name], schema.field(name).type) for name in self._features]
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]))
        self._waiting.append(pa.Table.from_arrays(arrays, schema=schema))
        if sum(len(table) for table in self._waiting) >= _ROWS_AT_A_TIME:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            # A dictionary of values that never repeat would only take time.
            self._writer = pq.ParquetWriter(
                self._unfinished, table.schema, use_dictionary=["class_name"]
            )
        self._writer.write_table(table)
        self._waiting.clear()
