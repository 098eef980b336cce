"""The methods that claims.py compares, by study."""

from typing import Any

from clce_hf.comparison.methods import METHODS, Method


def from_means(method: Method) -> Method:
    """The method, its classification layer started from class means."""
    return Method(f"{method.name}, class means", {**method.settings, "head_init": "class_means"})


CE, SUPCON, CLCE, PAPER = (METHODS[name] for name in ("ce", "supcon", "clce", "clce-paper"))
CE_MEANS, CLCE_MEANS = from_means(CE), from_means(CLCE)
CENTER = {"contrastive_weight": 0.5, "temperature": 0.1}
NOVEL_RECIPE = Method("CLCE, lambda 0.5, tau 0.1", CENTER)
CLAIMED = [CE, CE_MEANS, CLCE, CLCE_MEANS]
SHOTS = [*CLAIMED, NOVEL_RECIPE, SUPCON, PAPER]


def around(name: str, **settings: Any) -> Method:
    return Method(name, {**CENTER, **settings})


def supcon(name: str, **settings: Any) -> Method:
    return Method(f"SupCon, {name}", {**SUPCON.settings, **settings})


SETTINGS = [  # chosen on validation images: a grid around lambda 0.5 and tau 0.1, and beyond
    *(around(f"memory {size}", memory_size=size) for size in (0, 128, 256, 4096)),
    *(around(f"tau {tau:g}", temperature=tau) for tau in (0.05, 0.2, 0.3, 0.5)),
    *(around(f"beta {beta:g}", beta=beta) for beta in (0.0, 0.5, 1.0, 2.0)),
    *(around(f"lambda {weight:g}", contrastive_weight=weight) for weight in (0.25, 0.75, 0.9)),
    around("lambda 0.75, tau 0.2", contrastive_weight=0.75, temperature=0.2),
    around('"in"', variant="in"),
    around("groups of 4", samples_per_class=4),
    around("beta 0, no memory", beta=0.0, memory_size=0),
    around("beta 0, tau 0.5", beta=0.0, temperature=0.5),
    PAPER,
    Method("the paper's values, memory 1024", {**PAPER.settings, "memory_size": 1024}),
    *(Method(f"CLCE, memory {size}", {"memory_size": size}) for size in (0, 256, 4096)),
    *(Method(f"CLCE, beta {beta:g}", {"beta": beta}) for beta in (0.5, 1.0)),
    SUPCON,
    *(supcon(f"tau {tau:g}", temperature=tau) for tau in (0.1, 0.5)),
    *(supcon(f"lambda {weight:g}", contrastive_weight=weight) for weight in (0.5, 0.75)),
]
NOVEL = [CE, CLCE, NOVEL_RECIPE, SUPCON, PAPER]
STUDIES = {
    "rate": CLAIMED,
    "settings": [*CLAIMED, NOVEL_RECIPE, *SETTINGS],
    "shots": SHOTS,
    "novel": NOVEL,
}
BASELINES = [CE.name, CE_MEANS.name, SUPCON.name]
"""Subtracted from the others in the tables."""
