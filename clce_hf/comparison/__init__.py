"""Several methods, trained over paired seeds: the grid of cells, their resumable runs, tables.

What is measured of each run lives in `evaluation`, pictures in `reports`, the flags in `cli`.
"""

from clce_hf.comparison.grid import Cell, grid
from clce_hf.comparison.methods import METHODS, Method, read_methods, vary
from clce_hf.comparison.ranking import RANKINGS, Ranking
from clce_hf.comparison.results import write_results
from clce_hf.comparison.run import is_done, load_runs, run_cells, train_and_measure
from clce_hf.comparison.settings import keep_settings
from clce_hf.comparison.tables import check_measured, summaries

__all__ = [
    "METHODS",
    "RANKINGS",
    "Cell",
    "Method",
    "Ranking",
    "check_measured",
    "grid",
    "is_done",
    "keep_settings",
    "load_runs",
    "read_methods",
    "run_cells",
    "summaries",
    "train_and_measure",
    "vary",
    "write_results",
]
