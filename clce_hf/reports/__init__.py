"""Pages and pictures of runs: the only room that draws, with the `reports` extra installed.

It takes what `evaluation` keeps of a run; it trains and measures nothing, and knows no trainer.
Matplotlib and scikit-learn are imported when something is drawn, so the room imports without them.
"""

from clce_hf.evaluation.table import Table
from clce_hf.reports.curves import draw_training_curve
from clce_hf.reports.embedding_map import draw_embedding_map
from clce_hf.reports.extra import check_can_draw
from clce_hf.reports.report import write_report

__all__ = ["Table", "check_can_draw", "draw_embedding_map", "draw_training_curve", "write_report"]
