"""The methods that claims.py compares, by study."""

from typing import Any

from clce_hf.comparison.methods import METHODS, Method


def from_means(method: Method) -> Method:
    """The method, its classification layer started from class means."""
    return Method(f"{method.name}, class means", {**method.settings, "head_init": "class_means"})


def supcon(name: str, **settings: Any) -> Method:
    return from_means(Method(f"SupCon, {name}", {**METHODS["supcon"].settings, **settings}))


def clce(name: str, **settings: Any) -> Method:
    return from_means(Method(f"CLCE, {name}", settings))


CE, SUPCON, CLCE, PAPER = (METHODS[name] for name in ("ce", "supcon", "clce", "clce-paper"))
CE_MEANS, SUPCON_MEANS, CLCE_MEANS = (from_means(method) for method in (CE, SUPCON, CLCE))
GROUPS = {"samples_per_class": 4}
CLAIMED = [CE, CE_MEANS, CLCE, CLCE_MEANS]
SHOTS = [*CLAIMED, SUPCON, SUPCON_MEANS, PAPER]
SETTINGS = [  # chosen on validation images
    *(clce(f"memory {size}", memory_size=size) for size in (0, 128, 256, 4096)),
    *(clce(f"tau {tau:g}", temperature=tau) for tau in (0.05, 0.2, 0.5)),
    *(clce(f"beta {beta:g}", beta=beta) for beta in (0.5, 1.0, 2.0)),
    *(clce(f"lambda {weight:g}", contrastive_weight=weight) for weight in (0.25, 0.75, 0.9)),
    clce("in", variant="in"),
    clce("groups of 4", **GROUPS),
    *(supcon(f"lambda {weight:g}", contrastive_weight=weight) for weight in (0.25, 0.75, 0.9)),
    *(supcon(f"tau {tau:g}", temperature=tau) for tau in (0.05, 0.2, 0.5)),
    supcon("no memory", memory_size=0),
    supcon("no memory, groups of 4", memory_size=0, **GROUPS),
]
RECIPE = {"contrastive_weight": 0.2, "beta": 1.0, "variant": "in", "memory_size": 0, **GROUPS}
NOVEL = [
    *(CE, CLCE, SUPCON, PAPER),
    Method("CLCE, lambda 0.2", {"contrastive_weight": 0.2}),
    Method("novel_classes.yaml", RECIPE),
]
STUDIES = {
    "rate": CLAIMED,
    "settings": [*CLAIMED, SUPCON_MEANS, *SETTINGS],
    "shots": SHOTS,
    "novel": NOVEL,
}
BASELINES = [CE.name, CE_MEANS.name, SUPCON_MEANS.name]
"""Subtracted from the others in the tables."""
