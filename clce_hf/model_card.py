"""The model card of an image classifier: what the Hub shows of a run."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from clce_hf.config import CLCEConfig

_NOT_MEASURED = ("runtime", "per_second", "model_preparation_time")

_CITATION = """```bibtex
@inproceedings{long2024clce,
  title     = {{CLCE}: An Approach to Refining Cross-Entropy and Contrastive Learning for
               Optimized Learning Fusion},
  author    = {Long, Zijun and Killick, George and Zhuang, Lipeng and Aragon-Camarasa, Gerardo and
               Meng, Zaiqiao and McCreadie, Richard},
  booktitle = {ECAI 2024},
  year      = {2024},
  url       = {https://arxiv.org/abs/2402.14551}
}
```"""


@dataclass(frozen=True)
class Run:
    """What a card tells of a run.

    Attributes:
        name: the repository's id on the Hub, where it has one, else a name for the title.
        class_names: in the order of the logits.
        dataset: the data set that was evaluated on, or else trained on.
        settings: of the training, by name.
        log_history: of `TrainerState`.
        best_step: step whose model was kept; None for the last.
        pictures: files beside the card, by caption.
    """

    name: str
    class_names: Sequence[str]
    dataset: Any
    settings: dict[str, str]
    log_history: list[dict[str, float]]
    best_step: int | None
    pictures: dict[str, Path]
    is_contrasted: bool


def rewrite_model_card(file: Path, run: Run) -> None:
    """Complete the metadata that Trainer wrote to `file`, and tell the run in its own words.

    Nothing else of the machine gets into it than what the metadata and `run` hold; a base model
    that is a folder is left out.
    """
    data = ModelCard.load(file).data
    source = _source(run.dataset)
    results = measured(run.log_history, run.best_step)
    if not (isinstance(data.base_model, str) and _is_on_hub(data.base_model)):
        data.base_model = None
    data.datasets = _named_datasets(data, run.dataset, source)
    data.pipeline_tag = "image-classification"
    method = ["clce", "contrastive-learning"] if run.is_contrasted else []
    data.tags = list(dict.fromkeys([*(data.tags or []), "image-classification", *method]))
    data.metrics = [name for name in results if not name.endswith("loss")] or None
    data.model_name = run.name.split("/")[-1]
    data.eval_results = [
        _result(name, value, data, source) for name, value in results.items()
    ] or None
    text = "\n\n".join(_sections(data, run, results))
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(file)


def measured(log_history: list[dict[str, float]], best_step: int | None) -> dict[str, float]:
    """Metrics of the model that is kept, without their prefix `eval_`.

    Those measured after training, else those of `best_step`, else the last.
    """
    ends = [i for i, entry in enumerate(log_history) if "train_runtime" in entry]
    evaluations = [(i, entry) for i, entry in enumerate(log_history) if _is_evaluation(entry)]
    after = [entry for i, entry in evaluations if ends and i > ends[-1]]
    if not after and evaluations:
        step = evaluations[-1][1]["step"] if best_step is None else best_step
        after = [entry for _, entry in evaluations if entry["step"] == step]
    return {
        name.removeprefix("eval_"): value
        for entry in after
        for name, value in entry.items()
        if _is_metric(name) and math.isfinite(value)
    }


def training_settings(args: CLCEConfig) -> dict[str, str]:
    """Settings that decide what a run comes to, by name."""
    num_processes = args.world_size
    together = args.train_batch_size * (num_processes if args.gather_across_devices else 1)
    weight = args.contrastive_weight
    loss = {
        "loss": f"(1 - {weight:g}) cross-entropy + {weight:g} contrastive",
        "temperature (tau)": f"{args.temperature:g}",
        "hard-negative concentration (beta)": f"{args.beta:g}",
        "variant": args.variant,
        "contrasted": "the pooled embedding"
        if args.projection_dim is None
        else f"a projection to {args.projection_dim} dimensions",
        "images contrasted together": str(together),
    }
    steps = args.gradient_accumulation_steps
    parts = f"{args.train_batch_size} per device, {num_processes} processes, {steps} accumulated"
    is_capped = args.max_steps > 0
    length = f"{args.max_steps if is_capped else args.num_train_epochs:g}"
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return {
        **(loss if weight > 0 else {"loss": "cross-entropy"}),
        "sampler": "random"
        if args.samples_per_class is None
        else f"{args.samples_per_class} images of a class together",
        "batch size": f"{args.train_batch_size * num_processes * steps} ({parts})",
        "steps" if is_capped else "epochs": length,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "learning rate": f"{args.learning_rate:g}",
        "schedule": f"{schedule}, warm-up {args.warmup_steps:g}",
        "weight decay": f"{args.weight_decay:g}",
        "layer decay": "none" if args.layer_decay is None else f"{args.layer_decay:g}",
        "label smoothing": f"{args.label_smoothing_factor:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "seed": str(args.seed),
    }


def _is_metric(name: str) -> bool:
    return name.startswith("eval_") and not name.endswith(_NOT_MEASURED)


def _is_evaluation(entry: dict[str, float]) -> bool:
    return any(map(_is_metric, entry))


@dataclass(frozen=True)
class _Source:
    """Where a data set came from."""

    name: str = "unknown"
    is_on_hub: bool = False
    config: str | None = None
    split: str | None = None
    revision: str | None = None


def _source(dataset: Any) -> _Source:
    info = getattr(dataset, "info", None)
    if info is None:
        return _Source() if dataset is None else _Source(type(dataset).__name__)
    split = None if dataset.split is None else str(dataset.split)
    # A data set of the Hub does not know its name, but the folder that it is kept in has it.
    for kept in dataset.cache_files:
        *_, name, _, _, revision, _ = ("", "", "", "", *Path(kept["filename"]).parts)
        if "___" in name and re.fullmatch(r"[0-9a-f]{40}", revision):
            return _Source(name.replace("___", "/"), True, info.config_name, split, revision)
    return _Source(info.builder_name or "unknown", split=split)


def _named_datasets(data: ModelCardData, dataset: Any, source: _Source) -> list[str] | None:
    """Data sets on the Hub: those that the user named, else the one that was loaded."""
    # Trainer's default is the format that the data set was read from, such as imagefolder.
    format = getattr(dataset, "builder_name", None)
    tags = [data.datasets] if isinstance(data.datasets, str) else data.datasets or []
    named = [name for name in tags if name != format and _is_on_hub(name)]
    return named or ([source.name] if source.is_on_hub else None)


def _is_on_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def _result(name: str, value: float, data: ModelCardData, source: _Source) -> EvalResult:
    dataset = data.datasets[0] if data.datasets else source.name
    return EvalResult(
        task_type="image-classification",
        task_name="Image Classification",
        dataset_type=dataset,
        dataset_name=dataset,
        dataset_config=source.config,
        dataset_split=source.split,
        dataset_revision=source.revision,
        metric_type=name,
        metric_name=name,
        metric_value=value,
    )


def _sections(data: ModelCardData, run: Run, results: dict[str, float]) -> Iterable[str]:
    yield f"# {data.model_name}"
    base = _link(data.base_model) if isinstance(data.base_model, str) else "An image classifier"
    images = _link(data.datasets[0], "datasets/") if data.datasets else "images"
    loss = (
        "CLCE ([arXiv 2402.14551](https://arxiv.org/abs/2402.14551)): cross-entropy fused with a "
        "label-aware contrastive loss that weights hard negatives."
        if run.is_contrasted
        else "cross-entropy."
    )
    yield (
        f"{base}, trained to tell {len(run.class_names)} classes of {images} apart with {loss} The "
        f"classes: {_enumerate(run.class_names)}."
    )
    if results:
        yield "## Results"
        yield _table(("metric", "value"), [(k, f"{v:.4f}") for k, v in results.items()])
    yield "## Use"
    yield (
        "```python\nfrom transformers import pipeline\n\n"
        f'classify = pipeline("image-classification", model="{run.name}")\n'
        'print(classify("image.jpg"))\n```'
    )
    yield "It loads with Transformers alone: training added nothing to the model."
    yield "## Training"
    yield _table(("setting", "value"), list(run.settings.items()))
    for caption, file in run.pictures.items():
        yield f"![{caption}]({file.name})"
        yield f"*{caption}*"
    if rows := _progress(run.log_history):
        yield "## Progress"
        names = list(dict.fromkeys(name for row in rows for name in row))
        yield _table(names, [[row.get(name, "") for name in names] for row in rows])
    yield "## Versions"
    packages = ("clce_hf", "transformers", "torch", "datasets", "accelerate")
    yield "\n".join(f"- {package} {version(package)}" for package in packages)
    yield "## Citation"
    yield _CITATION


def _link(id: str, kind: str = "") -> str:
    return f"[{id}](https://huggingface.co/{kind}{id})"


def _enumerate(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _progress(log_history: list[dict[str, float]]) -> list[dict[str, str]]:
    """Evaluations during training, each with the terms of the loss that were logged before it."""
    rows, terms = [], {}
    for entry in log_history:
        if "train_runtime" in entry:
            break
        if "loss" in entry:
            names = ("loss", "ce_loss", "contrastive_loss")
            terms = {f"train {name}": f"{entry[name]:.4f}" for name in names if name in entry}
        elif _is_evaluation(entry):
            metrics = {
                name.replace("_", " ", 1): f"{value:.4f}"
                for name, value in entry.items()
                if _is_metric(name)
            }
            rows.append(
                {"epoch": f"{entry['epoch']:g}", "step": f"{entry['step']:g}", **terms, **metrics}
            )
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])
