"""The methods that claims.py compares, by study."""

from clce_hf.comparison.methods import METHODS, Method

CE, CLCE = METHODS["ce"], METHODS["clce"]
SUPCON = Method("CE + SupCon, tau 0.1", METHODS["supcon"].settings)
SUPCON_WARM = Method("CE + SupCon, tau 0.5", {"variant": "out", "beta": 0.0})
SUPCON_OTHERS = [
    Method(f"CE + SupCon, tau {t:g}", {**SUPCON.settings, "temperature": t})
    for t in (0.05, 0.25, 1.0)
]
RANDOM = {"samples_per_class": None}
SMOOTH = {"label_smoothing_factor": 0.1}
SHOTS = [
    Method("CE, random batches", {**CE.settings, **RANDOM}),
    CE,
    SUPCON,
    SUPCON_WARM,
    *SUPCON_OTHERS,  # one of them may be SupCon's best on validation images
    Method("CLCE, random batches", RANDOM),
    CLCE,
    METHODS["clce-out"],
    METHODS["clce-uniform"],
]
CALIBRATED = [
    Method("CE, label smoothing 0.1", {**CE.settings, **SMOOTH}),
    Method("CLCE, label smoothing 0.1", SMOOTH),
]
SETTINGS = [  # for what to recommend; chosen on validation images
    *(
        Method(f"CLCE, lambda {w:g}, tau {t:g}", {"temperature": t, "contrastive_weight": w})
        for t in (0.1, 0.25, 0.5)
        for w in (0.3, 0.5, 0.9)
    ),
    *(
        Method(
            f"SupCon, lambda {weight:g}, tau 0.1", {**SUPCON.settings, "contrastive_weight": weight}
        )
        for weight in (0.3, 0.5)
    ),
    SUPCON_WARM,
    *SUPCON_OTHERS,
    *(Method(f"CLCE, {k} images of a class", {"samples_per_class": k}) for k in (2, 8)),
]
NOVEL = [
    CE,
    SUPCON,
    CLCE,
    METHODS["clce-out"],
    Method("CLCE, projection 128", {"projection_dim": 128}),
    Method("CLCE, lambda 0.5", {"contrastive_weight": 0.5}),
    Method("CLCE, lambda 0.5, projection 128", {"contrastive_weight": 0.5, "projection_dim": 128}),
    Method("CLCE, tau 0.1", {"temperature": 0.1}),
    Method("CLCE, tau 1", {"temperature": 1.0}),
    Method("CLCE, lambda 0.5, tau 0.1", {"contrastive_weight": 0.5, "temperature": 0.1}),
    Method("CLCE, lambda 0.5, tau 0.25", {"contrastive_weight": 0.5, "temperature": 0.25}),
    Method("CLCE, lambda 0.2", {"contrastive_weight": 0.2}),
    Method("CLCE, lambda 0.2, tau 0.1", {"contrastive_weight": 0.2, "temperature": 0.1}),
    Method("SupCon, lambda 0.5, tau 0.1", {**SUPCON.settings, "contrastive_weight": 0.5}),
    Method("CLCE, a third of the steps", {"max_steps": 20}),
    Method("CE, a third of the steps", {**CE.settings, "max_steps": 20}),
    Method("SupCon, projection 128", {**SUPCON.settings, "projection_dim": 128}),
]
STUDIES = {
    "rate": SHOTS[:2],
    "shots": SHOTS,
    "settings": [CE, SUPCON, *SETTINGS],
    "calibration": [CE, CLCE, SUPCON, *CALIBRATED],
    "novel": NOVEL,
    "batches": [CE, SUPCON, CLCE],
}
BASELINES = [  # the best of each is subtracted
    [CE.name, SHOTS[0].name],
    [method.name for method in (SUPCON, SUPCON_WARM, *SUPCON_OTHERS)],
    [CLCE.name, "CLCE, lambda 0.9, tau 0.5"],  # the same method, named by its study
    [METHODS["clce-uniform"].name],
]
