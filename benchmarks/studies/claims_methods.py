"""The methods that claims.py compares, by study."""

from clce_hf.comparison.methods import METHODS, Method


def from_means(method: Method) -> Method:
    """The method, its classification layer started from class means."""
    return Method(f"{method.name}, class means", {**method.settings, "head_init": "class_means"})


CE, SUPCON, CLCE, PAPER = (METHODS[name] for name in ("ce", "supcon", "clce", "clce-paper"))
CE_MEANS, SUPCON_MEANS, CLCE_MEANS = (from_means(method) for method in (CE, SUPCON, CLCE))
GROUPS = {"samples_per_class": 4}
CLAIMED = [CE, CE_MEANS, CLCE, CLCE_MEANS]
MORE = {"contrastive_weight": 0.9, "temperature": 0.3}
SHOTS = [*CLAIMED, SUPCON, SUPCON_MEANS, PAPER, Method("CLCE, lambda 0.9, tau 0.3", MORE)]
SETTINGS = [  # chosen on validation images
    *(Method(f"CLCE, memory {size}", {"memory_size": size}) for size in (0, 128, 256, 4096)),
    *(Method(f"CLCE, tau {tau:g}", {"temperature": tau}) for tau in (0.05, 0.2, 0.3, 0.5)),
    *(Method(f"CLCE, beta {beta:g}", {"beta": beta}) for beta in (0.5, 1.0, 2.0)),
    *(Method(f"CLCE, lambda {w:g}", {"contrastive_weight": w}) for w in (0.25, 0.75, 0.9)),
    Method("CLCE, lambda 0.75, tau 0.2", {"contrastive_weight": 0.75, "temperature": 0.2}),
    Method("CLCE, lambda 0.9, tau 0.3", MORE),
    Method('CLCE, "in"', {"variant": "in"}),
    Method("CLCE, groups of 4", GROUPS),
    PAPER,
    Method("the paper's values, memory 1024", {**PAPER.settings, "memory_size": 1024}),
    SUPCON,
    Method("CE + SupCon, no memory", {**SUPCON.settings, "memory_size": 0}),
    Method("CE + SupCon, tau 0.5", {**SUPCON.settings, "temperature": 0.5}),
]
RECIPE = {"contrastive_weight": 0.2, "beta": 1.0, "variant": "in", "memory_size": 0, **GROUPS}
NOVEL = [
    *(CE, CLCE, SUPCON, PAPER),
    Method("CLCE, lambda 0.2", {"contrastive_weight": 0.2}),
    Method("novel_classes.yaml", RECIPE),
    Method("CLCE, lambda 0.9, tau 0.3", MORE),
]
STUDIES = {
    "rate": CLAIMED,
    "settings": [*CLAIMED, *SETTINGS],
    "shots": SHOTS,
    "novel": NOVEL,
}
BASELINES = [CE.name, CE_MEANS.name, SUPCON_MEANS.name]
"""Subtracted from the others in the tables."""
