"""What only a GPU can show: the time of a step, and of the loss against its bound; in 8 minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --small    # the same on tiny sizes, also on a CPU

A step is CLCETrainer's, with its defaults, over stock Trainer's: ViT-B/16 from a config, 224 px,
bf16, batch 128, the two in turns within `train()`; the ratio is the median over the turns.
"Compiled" is both with torch_compile. "Cached" is one CLCETrainer step on a large batch, a
mini-batch at a time, over as many plain steps as it has mini-batches, run before it.

The loss is forward and backward of the contrastive term. Its bound is the time of the three
products of an n x n matrix with n x D embeddings that it cannot do without, in float32, in which it
computes whatever the dtype of the embeddings.

"Blocks" is the same loss with more anchors in a block than `Blocking.of` chooses for a CPU's cache.

The last lines are one table. What does not fit the memory is said to.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_metric_learning.losses import SupConLoss
from taking_turns import Noise, seconds_of_steps
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer, ViTConfig, ViTForImageClassification

from clce_hf import CLCEConfig, CLCETrainer, label_aware_contrastive_loss
from clce_hf.loss.contrastive import Blocking, contrastive_sum
from clce_hf.loss.unit_length import to_unit_length

DEVICE = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


_WARM_UP = 10
"""Steps before those that are timed: then the memory of 1,024 embeddings is full."""


@dataclass(frozen=True)
class Sizes:
    vit: dict[str, Any]
    batch: int
    large_batch: int
    dim: int
    numbers: tuple[int, ...]
    turns: int
    compiler: str


FULL = Sizes({}, 128, 4096, 768, (1024, 4096, 8192, 16384, 32768, 65536), 10, "inductor")
SMALL = Sizes(
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    | {"image_size": 32},
    *(8, 16, 16, (32, 64), 2, "aot_eager"),
)


def seconds(run: Callable[[], object]) -> float:
    """Of one call, until the device is done."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if DEVICE.type != "cpu":
        torch.accelerator.synchronize()


def in_turns(turns: int, *runs: Callable[[], object]) -> list[list[float]]:
    """Seconds of each run, each turn in another order, after two turns to warm up."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(turns + 2):
        order = range(len(runs)) if turn % 2 else reversed(range(len(runs)))
        for i in order:
            taken = seconds(runs[i])
            if turn >= 2:
                times[i].append(taken)
    return times


def ratio(of: list[float], to: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


# ---- a step ----


def make_trainer(cls: type[Trainer], sizes: Sizes, folder: str, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    values: dict[str, Any] = {"num_labels": 100, **sizes.vit}
    vit = ViTConfig(**values)
    values = {"per_device_train_batch_size": sizes.batch, **settings}
    args = CLCEConfig(
        folder,
        max_steps=_WARM_UP + sizes.turns * sizes.large_batch // sizes.batch,
        bf16=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=DEVICE.type != "cpu",
        use_cpu=DEVICE.type == "cpu",
        **values,
    )
    images = Noise(4 * args.train_batch_size, int(str(vit.image_size)), 100)
    return cls(ViTForImageClassification(vit), args, train_dataset=images)


def steps(sizes: Sizes, folder: str) -> Iterator[tuple[str, str, str, str]]:
    compiled: dict[str, Any] = {"torch_compile": True, "torch_compile_backend": sizes.compiler}
    for name, settings in {"a step": {}, "a step, compiled": compiled}.items():
        trainers = [make_trainer(cls, sizes, folder, **settings) for cls in (Trainer, CLCETrainer)]
        times = seconds_of_steps(trainers, sizes.turns, _WARM_UP)
        yield _row(f"{name}, batch {sizes.batch}", times, "stock Trainer")
    per_step, turns = sizes.large_batch // sizes.batch, max(1, sizes.turns // 5)
    plain = make_trainer(CLCETrainer, sizes, folder)
    cached = make_trainer(
        CLCETrainer,
        sizes,
        folder,
        per_device_train_batch_size=sizes.large_batch,
        cached_mini_batch_size=sizes.batch,
    )
    (times,) = seconds_of_steps([plain], per_step * turns, _WARM_UP)
    as_many = [sum(times[i * per_step : (i + 1) * per_step]) for i in range(turns)]
    (times,) = seconds_of_steps([cached], turns)
    yield _row(f"a cached step, batch {sizes.large_batch}", [as_many, times], "as many plain ones")


def _row(name: str, times: list[list[float]], to: str) -> tuple[str, str, str, str]:
    other, ours = times
    milliseconds = 1e3 * statistics.median(ours)
    return name, f"{milliseconds:.2f}", f"{ratio(ours, other):.3f}", to


# ---- the loss ----


def clce(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The contrastive term, with the defaults of CLCETrainer and no memory."""
    return label_aware_contrastive_loss(
        embeddings, labels, temperature=0.3, beta=0.25, variant="out"
    )


class Loss:
    """Forward and backward of a loss on given embeddings."""

    def __init__(self, loss: Callable[..., Any], embeddings: torch.Tensor, labels: torch.Tensor):
        self.loss, self.embeddings, self.labels = loss, embeddings, labels

    def __call__(self) -> None:
        self.loss(self.embeddings.detach().requires_grad_(), self.labels).backward()


class Products:
    """The products that the loss cannot do without, in blocks of rows."""

    def __init__(self, embeddings: torch.Tensor):
        self.keys = embeddings.float()
        self.block = self.keys.new_empty(min(len(self.keys), 8192), len(self.keys))

    def __call__(self) -> None:
        for rows in self.keys.split(len(self.block)):
            part = self.block[: len(rows)]
            torch.mm(rows, self.keys.T, out=part)
            torch.mm(part, self.keys)
            torch.mm(part.T, rows)


def losses(sizes: Sizes) -> Iterator[tuple[str, str, str, str]]:
    for dtype in (torch.float32, torch.bfloat16):
        for n in sizes.numbers:
            torch.manual_seed(0)
            embeddings = torch.randn(n, sizes.dim, device=DEVICE, dtype=dtype)
            labels = torch.randint(100, (n,), device=DEVICE)
            name = f"loss, n = {n}, {str(dtype).removeprefix('torch.')}"
            turns = sizes.turns if n <= 16384 else 3
            ours = Loss(clce, embeddings, labels)
            times = in_turns(turns, Products(embeddings), ours)
            what = f"the matrix products; {_memory(ours)}"
            yield _row(name, times, f"{what}; {_kernels(ours)}" if n <= 1024 else what)
            theirs = Loss(SupConLoss(temperature=0.3), embeddings, labels)
            try:
                yield _row(name, in_turns(turns, theirs, ours), f"SupConLoss; {_memory(theirs)}")
            except torch.OutOfMemoryError:
                torch.accelerator.empty_cache()
                yield name, "", "", "SupConLoss does not fit the memory"


def blocks(sizes: Sizes) -> Iterator[tuple[str, str, str, str]]:
    """The loss with larger blocks of anchors than those that suit a CPU's cache."""
    for n in sizes.numbers[-3::2]:
        torch.manual_seed(0)
        embeddings = to_unit_length(torch.randn(n, sizes.dim, device=DEVICE))
        labels = torch.randint(100, (n,), device=DEVICE)
        chosen = Blocking.of(n, n, sizes.dim)
        ours = Loss(in_blocks(chosen), embeddings, labels)
        for rows in (chosen.rows * 4, chosen.rows * 16):
            larger = Loss(in_blocks(chosen._replace(rows=min(rows, n))), embeddings, labels)
            times = in_turns(3, ours, larger)
            name = f"loss, n = {n}, blocks of {rows} anchors"
            yield _row(name, times, f"blocks of {chosen.rows}; {_memory(larger)}")


def in_blocks(blocking: Blocking) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        anchors = range(len(embeddings))
        return contrastive_sum(embeddings, labels, anchors, 0.3, 0.25, "out", blocking=blocking)

    return loss


def _memory(run: Callable[[], None]) -> str:
    """The peak of one call, beyond what was there before."""
    if DEVICE.type == "cpu":
        return "memory not measured"
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    run()
    _wait()
    return f"{(torch.accelerator.max_memory_allocated() - before) / 2**20:.0f} MiB"


def _kernels(run: Callable[[], None]) -> str:
    """How many kernels one call launches."""
    if DEVICE.type == "cpu":
        return "kernels not counted"
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        _wait()
    return f"{sum(event.count for event in profiled.key_averages())} kernels"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    sizes = SMALL if parser.parse_args().small else FULL
    is_gpu = DEVICE.type == "cuda"
    device = torch.cuda.get_device_name() if is_gpu else f"{DEVICE.type}, so no numbers of a GPU"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (steps(sizes, folder), losses(sizes), blocks(sizes)):
            for row in part:
                print(*row, sep="  ", flush=True)
                rows.append(row)
    print(f"\n{device}; torch {torch.__version__}\n")
    print("| | ms | ratio | to |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
