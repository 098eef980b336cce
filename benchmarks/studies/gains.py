"""The gains over cross-entropy in all that claims.py has run: tables, and a picture.

    python benchmarks/studies/gains.py runs/claims --plot docs/gains.svg

A row is a data set, a checkpoint and a regime: learning rate, batch size, steps, images a class.
"""

import argparse
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

from claims_methods import CE, CE_MEANS, CLCE, CLCE_MEANS, SHOTS, SUPCON

from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.record import RECORD_FILE
from clce_hf.evaluation.table import Table

DRAWN = {
    "EfficientNet": ("#1f6fb2", "0.003, 40,", "0.001, 40, 3 epochs"),
    "ViT": ("#f0a35e", "0.0003, 40,"),
}
"""The models of the picture: their colors, and the beginnings of their regimes."""

NAMES = {
    "sign_digits": "sign digits",
    "grocery": "groceries",
    "fashion": "Fashion-MNIST",
    "effnet": "EfficientNet",
    "dinov2": "ViT",
}


def read(folder):
    """Metrics by setting, method and seed; settings in the order of their names."""
    settings = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob(f"shots-*/*/*/{RECORD_FILE}")):
        run = json.loads(file.read_text(encoding="utf-8"))
        data, model, blocks = file.parents[2].name.removeprefix("shots-").rsplit("-", 2)
        regime = re.sub(r"(lr)(.+)-batch(\d+)-(\d+)(\D+)", r"\2, \3, \4 \5", file.parents[1].name)
        shots = run["shots"] or "all"
        named = NAMES.get(model, model) + (", whole" if blocks == "None" else "")
        place = (named, NAMES.get(data, data), shots, regime)
        settings[place][run["method"]][run["seed"]] = run["metrics"]
    return settings


def gain(methods, name, baseline, metric="accuracy", scale=100):
    seeds = sorted(methods[name].keys() & methods[baseline].keys())
    pairs = ([scale * methods[m][s][metric] for s in seeds] for m in (name, baseline))
    return paired_difference(*pairs)


def table(settings, caption, entry):
    rows = []
    for place, methods in settings.items():
        model, data, shots, regime = place
        seeds = len(methods[CE.name])
        head = [f"{model}, {data}", str(shots), regime, str(seeds)]
        rows.append([*head, *(entry(methods, m.name) if m.name in methods else "" for m in SHOTS)])
    return Table(
        caption, ["", "images", "rate, batch, steps", "seeds", *(m.name for m in SHOTS)], rows
    )


def mean_of(metric, scale, digits):
    def entry(methods, name):
        return f"{scale * statistics.mean(m[metric] for m in methods[name].values()):.{digits}f}"

    return entry


def gain_over(baseline):
    def entry(methods, name):
        if name == baseline or baseline not in methods:
            return ""
        over = gain(methods, name, baseline)
        return f"{over.mean:+z.2f} ± {over.interval:.2f} ({over.wins})"

    return entry


def at_their_best(settings, shots=10):
    """Cross-entropy against CLCE, each with the rate, batch and head's start that suit it best.

    The best is that of the highest mean test accuracy over the seeds that all regimes have, of
    those regimes that have five seeds.
    """
    by_data = defaultdict(list)
    for (model, data, images, regime), methods in settings.items():
        of_both = (CE.name, CE_MEANS.name, CLCE.name, CLCE_MEANS.name)
        if images == shots and all(len(methods.get(name, ())) >= 5 for name in of_both):
            by_data[model, data].append((regime, methods))
    rows = []
    for (model, data), regimes in by_data.items():
        seeds = set.intersection(*(set(runs) for _, m in regimes for runs in m.values()))

        def best_of(names, regimes=regimes, seeds=seeds):
            def mean(regime_and_name):
                regime, name = regime_and_name
                return statistics.mean(regimes[regime][1][name][seed]["accuracy"] for seed in seeds)

            regime, name = max(((i, n) for i in range(len(regimes)) for n in names), key=mean)
            return regimes[regime][0], name, {s: regimes[regime][1][name][s] for s in seeds}

        theirs, ours = best_of([CE.name, CE_MEANS.name]), best_of([CLCE.name, CLCE_MEANS.name])
        row = [f"{model}, {data}", str(len(seeds))]
        for regime, name, runs in (theirs, ours):
            row.append(f"{100 * statistics.mean(m['accuracy'] for m in runs.values()):.2f}")
            row.append(f"{name}; {regime}")
            row.append(
                f"{statistics.mean(m['negative_log_likelihood'] for m in runs.values()):.3f}"
            )
        over = gain({CLCE.name: ours[2], CE.name: theirs[2]}, CLCE.name, CE.name)
        rows.append([*row, f"{over.mean:+z.2f} ± {over.interval:.2f} ({over.wins})"])
    header = [*(f"{loss} {what}" for loss in ("CE", "CLCE") for what in ("%", "with", "NLL"))]
    return Table("Each at its best", ["", "seeds", *header, "gain"], rows)


def plot(settings, file):
    """Draw CLCE's gains by data set and images a class, in the regime of the first comparison."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 5.2), layout="constrained")
    shown = [p for p in settings if p[3].startswith(DRAWN.get(p[0], ("", "none"))[1:])]
    rows = sorted({place[1:3] for place in shown}, key=lambda row: (row[0], str(row[1]).zfill(3)))
    gaps = {data: number for number, data in enumerate(dict.fromkeys(data for data, _ in rows))}
    heights = {row: number + 0.6 * gaps[row[0]] for number, row in enumerate(rows)}
    for shift, (model, (color, *_)) in enumerate(DRAWN.items()):
        of_model = [place for place in shown if place[0] == model]
        gains = [gain(settings[place], CLCE.name, CE.name) for place in of_model]
        axis.errorbar(
            [over.mean for over in gains],
            [heights[place[1:3]] + 0.24 * (shift - 0.5) for place in of_model],
            xerr=[over.interval for over in gains],
            fmt="o",
            markersize=5,
            color=color,
            label=model,
        )
    axis.axvline(0, color="#1f2933", linewidth=1)
    axis.set(yticks=list(heights.values()), yticklabels=[f"{d}, {n}" for d, n in heights])
    axis.set(xlabel=f"points above {CE.name}, with 95 % interval", xlim=(-1.5, 11.5))
    axis.set_title("CLCE for cross-entropy: accuracy, by images a class", fontsize=11)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#e4e7eb")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(loc="lower right", frameon=False)
    figure.savefig(file, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    settings = read(args.folder)
    for title, entry in (
        ("Accuracy, %", mean_of("accuracy", 100, 2)),
        (f"Gain over {CE.name}, points", gain_over(CE.name)),
        (f"Gain over {CE_MEANS.name}, points", gain_over(CE_MEANS.name)),
        (f"Gain over {SUPCON.name}, points", gain_over(SUPCON.name)),
        ("Negative log-likelihood", mean_of("negative_log_likelihood", 1, 3)),
        ("Calibration error", mean_of("calibration_error", 1, 3)),
        ("Milliseconds a step", mean_of("seconds_per_step", 1000, 0)),
    ):
        print(f"\n{title}\n\n{table(settings, title, entry).as_markdown()}")
    print(f"\nEach at its best\n\n{at_their_best(settings).as_markdown()}")
    if args.plot:
        plot({p: m for p, m in settings.items() if len(m.get(CLCE.name, ())) > 2}, args.plot)


if __name__ == "__main__":
    main()
