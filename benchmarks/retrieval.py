"""Time and extra memory of retrieval metrics, beside pytorch-metric-learning's AccuracyCalculator.

Each measurement runs in a process of its own, the two in turn: the extra memory is its peak
resident memory less what it held just before. AccuracyCalculator searches with faiss, as it does
where faiss-cpu is installed; it measures no recall at 5. Process time is that of all threads.

    python benchmarks/retrieval.py --sizes 10000 50000 --classes 10 100 5000 --turns 3
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from clce_hf.evaluation.retrieval import retrieval_metrics

MOST_NEIGHBORS = 10**8  # AccuracyCalculator holds n x R numbers several times: 4 GB at this many
THEIRS = {
    "precision_at_1": "recall_at_1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map_at_r",
}


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def metrics(name, embeddings, labels):
    if name == "clce_hf":
        return retrieval_metrics(embeddings, labels)
    calculator = AccuracyCalculator(
        include=tuple(THEIRS), k="max_bin_count", device=torch.device("cpu")
    )
    values = calculator.get_accuracy(F.normalize(embeddings), labels)
    return {ours: values[theirs] for theirs, ours in THEIRS.items()}


def measure(name, n, num_classes, dim):
    torch.manual_seed(0)
    labels = torch.arange(n) % num_classes
    embeddings, centers = torch.randn(n, dim), 0.3 * torch.randn(num_classes, dim)
    for rows in torch.arange(n).split(1000):  # whatever is freed again would hide what is measured
        embeddings[rows] += centers[labels[rows]]
    metrics(name, embeddings[:100], torch.arange(100) % 10)  # what libraries allocate once
    before, start, start_cpu = peak_mib(), time.perf_counter(), time.process_time()
    values = metrics(name, embeddings, labels)
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    point = {"wall": wall, "cpu": cpu, "mib": peak_mib() - before, "values": values}
    print(json.dumps(point))


def run_alone(name, n, num_classes, dim):
    one = ["--dim", str(dim), "--one", name, str(n), str(num_classes)]
    done = subprocess.run(
        [sys.executable, __file__, *one], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def medians(points):
    return {key: statistics.median(p[key] for p in points) for key in ("wall", "cpu", "mib")}


def row(n, num_classes, points):
    ours = medians(points["clce_hf"])
    theirs = medians(points["theirs"]) if "theirs" in points else {}
    differences = [
        abs(a["values"][name] - b["values"][name])
        for a, b in zip(points["clce_hf"], points.get("theirs", []), strict=False)
        for name in THEIRS.values()
    ]
    entries = [f"{n:,}", f"{num_classes:,}"]
    for key, digits in (("cpu", 1), ("mib", 0)):
        entries += [f"{ours[key]:.{digits}f}", f"{theirs[key]:.{digits}f}" if theirs else "-"]
    entries += [f"{theirs[key] / ours[key]:.1f}" if theirs else "-" for key in ("cpu", "wall")]
    return [*entries, f"{max(differences):.0e}" if theirs else "-"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 5000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("NAME", "N", "CLASSES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, n, num_classes = args.one
        return measure(name, int(n), int(num_classes), args.dim)

    header = ["images", "classes", "process s", "theirs", "extra MiB", "theirs"]
    header += ["times faster by process time", "by the clock", "largest difference"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for n in args.sizes:
        for num_classes in args.classes:
            names = ["clce_hf"]
            if n * n // num_classes <= MOST_NEIGHBORS:
                names.append("theirs")
            points = {name: [] for name in names}
            for _ in range(args.turns):
                for name in names:
                    points[name].append(run_alone(name, n, num_classes, args.dim))
            print(f"| {' | '.join(row(n, num_classes, points))} |", flush=True)


if __name__ == "__main__":
    main()
