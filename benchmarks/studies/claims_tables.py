"""Tables of the studies of claims.py, in Markdown."""

import statistics
from collections import defaultdict

from claims_methods import BASELINES

from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.table import Table


def print_tables(runs, metrics):
    """Markdown: means, deviations, and paired differences in accuracy to the baselines."""
    groups = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        groups[run.shots, run.batch_size][run.method][run.seed] = run.metrics
    for (shots, batch), methods in groups.items():
        table = summary(f"{shots or 'all'} images per class, batch {batch}", methods, metrics)
        print(f"\n{table.caption}\n\n{table.as_markdown()}")


def summary(caption, methods, metrics):
    """A row per method: its metrics by seed, and the paired differences to each baseline."""
    known = [name for name in BASELINES if name in methods]
    rows = []
    for name, by_seed in methods.items():
        entries = [name, str(len(by_seed))]
        for metric in metrics:
            values = [measured[metric] for measured in by_seed.values()]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            entries.append(f"{mean(by_seed, metric):.4f} ± {spread:.4f}")
        entries += [difference(by_seed, methods[base], metrics[0]) for base in known]
        rows.append([*entries, f"{1000 * mean(by_seed, 'seconds_per_step'):.0f}"])
    header = ["", "seeds", *metrics, *(f"less {name}" for name in known), "ms per step"]
    return Table(caption, header, rows)


def mean(by_seed, metric):
    return statistics.mean(measured[metric] for measured in by_seed.values())


def difference(by_seed, others, metric):
    seeds = sorted(by_seed.keys() & others.keys())
    if by_seed is others or not seeds:
        return ""
    gain = paired_difference(*([run[s][metric] for s in seeds] for run in (by_seed, others)))
    percent = f"{100 * gain.mean:+z.2f} ± {100 * gain.interval:.2f}"
    return f"{percent} ({gain.wins} of {gain.pairs})"
