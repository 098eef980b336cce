"""Several gloo processes against one: gradients, weights after five AdamW steps, and time.

    python benchmarks/processes.py equality --processes 1 2 4
    python benchmarks/processes.py scaling      # the same batch per process, in 1 and 2 processes

Uses the cases of the tests and starts them with `accelerate launch`.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import weak_scaling
from support import scale_cases
from support.launching import launch


def equality(counts):
    for count in counts:
        cases = scale_cases.grid(max(16, 8 * count))
        with tempfile.TemporaryDirectory() as folder:
            runs = scale_cases.train_in_processes(cases, Path(folder), count)
            errors = {}
            for case in cases:
                plain = case.with_arguments(cached_mini_batch_size=None)
                reference = scale_cases.train(plain, Path(folder), 1)
                errors[case.name] = scale_cases.differences(runs[case.name], reference)
        for name, error in errors.items():
            print(
                f"{count} processes, {name}: gradient {error['gradient']:.1e}, "
                f"weights {error['weight']:.1e}, logs {error['log']:.1e}"
            )
        for kind in ("gradient", "weight", "log"):
            print(
                f"{count} processes, largest {kind} difference: "
                f"{max(error[kind] for error in errors.values()):.1e}"
            )


def scaling(turns):
    ratios = []
    for _ in range(turns):
        seconds = {}
        for count in (1, 2):
            done = launch(weak_scaling.__file__, str(count), num_processes=count)
            seconds[count] = float(done.stdout.split("seconds per step ")[1].split()[0])
        ratios.append(seconds[1] / seconds[2])
        print(
            f"1 process {seconds[1]:.3f} s per step, 2 processes {seconds[2]:.3f}: "
            f"efficiency {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"weak scaling efficiency, median: {statistics.median(ratios):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["equality", "scaling"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    if args.what == "equality":
        equality(args.processes)
    else:
        scaling(args.turns)


if __name__ == "__main__":
    main()
