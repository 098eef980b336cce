"""The model card of an image classifier: what the Hub shows of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch import nn
from transformers import PreTrainedModel

from clce_hf.hub.results import (
    Source,
    eval_results,
    is_evaluation,
    is_metric,
    measured,
    source_of,
    sources_by_metric,
)

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


_LOAD = """```python
from transformers import pipeline

classify = pipeline("image-classification", model="{name}")
print(classify("image.jpg"))
```"""

_LOAD_ADAPTER = """```python
from peft import PeftModel
from transformers import AutoImageProcessor, pipeline
from transformers import AutoModelForImageClassification as Classifier

base = Classifier.from_pretrained(
    "{base}", num_labels={num_labels}, ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(base, "{name}").merge_and_unload()
processor = AutoImageProcessor.from_pretrained("{name}")
classify = pipeline("image-classification", model=model, image_processor=processor)
print(classify("image.jpg"))
```"""


@dataclass(frozen=True)
class Run:
    """What a card tells of a run.

    Attributes:
        name: the repository's id on the Hub, where it has one, else a name for the title.
        class_names: in the order of the logits; empty where the model does not tell them.
        trained_on: the training data set, or None.
        evaluated_on: data sets by the prefix of their metrics.
        settings: of the training, by name.
        log_history: of `TrainerState`.
        best_step: step whose model was kept; None for the last.
        pictures: files beside the card, by caption.
        is_contrasted: whether the loss had a contrastive term.
        loads_with: the libraries that load the model; empty for a class of one's own.
        given: the arguments of `create_model_card`, by name.
    """

    name: str
    class_names: Sequence[str]
    trained_on: Any
    evaluated_on: Mapping[str, Any]
    settings: dict[str, str]
    log_history: list[dict[str, Any]]
    best_step: int | None
    pictures: dict[str, Path]
    is_contrasted: bool
    loads_with: Sequence[str]
    given: Mapping[str, Any]


def rewrite_model_card(file: Path, run: Run) -> tuple[dict[str, float], dict[str, Source]]:
    """Complete the metadata that Trainer wrote to `file`, and tell the run in its own words.

    Nothing else of the machine gets into it than what the metadata and `run` hold; a base model
    that is a folder is left out.

    Returns:
        The metrics of the card by name, and where they were measured.
    """
    data = ModelCard.load(file).data
    results = measured(run.log_history, run.best_step)
    sources = sources_by_metric(results, run.evaluated_on)
    if not (isinstance(data.base_model, str) and _is_on_hub(data.base_model)):
        data.base_model = None
    named = [name for name in _listed(run.given.get("dataset_tags")) if _is_on_hub(name)]
    loaded = [source_of(run.trained_on), *sources.values()]
    on_hub = named or [source.name for source in loaded if source.is_on_hub]
    data.datasets = list(dict.fromkeys(on_hub)) or None
    data.pipeline_tag = "image-classification"
    method = ["clce", "contrastive-learning"] if run.is_contrasted else []
    data.tags = list(dict.fromkeys([*(data.tags or []), "image-classification", *method]))
    data.metrics = [name for name in results if not name.endswith("loss")] or None
    data.model_name = run.given.get("model_name") or run.name.split("/")[-1]
    of_dataset = {"type": named, "name": run.given.get("dataset")}
    of_dataset["args"] = run.given.get("dataset_args")
    first = {key: next(iter(_listed(value)), None) for key, value in of_dataset.items()}
    data.eval_results = eval_results(results, sources, first) or None
    text = "\n\n".join(_sections(data, run, results))
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(file)
    return results, sources


def loads_with(model: nn.Module) -> list[str]:
    """Name the libraries that load what Trainer saves of a model; none do a class of one's own."""
    is_wrapped = hasattr(model, "get_base_model")
    base = cast(Any, model).get_base_model() if is_wrapped else model
    if not isinstance(base, PreTrainedModel):
        return []
    is_adapter = is_wrapped or getattr(base, "_hf_peft_config_loaded", False)
    is_timm = base.config.model_type == "timm_wrapper"
    return ["Transformers", *["timm"] * is_timm, *["PEFT"] * is_adapter]


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values) if isinstance(values, list | tuple) else [values]


def _is_on_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


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
    if run.class_names:
        yield (
            f"{base}, trained to tell {len(run.class_names)} classes of {images} apart with {loss} "
            f"The classes: {_enumerate(run.class_names)}."
        )
    else:
        yield f"{base}, trained to classify {images} with {loss}"
    if results:
        yield "## Results"
        yield _table(("metric", "value"), [(k, _number(v)) for k, v in results.items()])
        yield "`loss` is the cross-entropy alone."
    yield "## Use"
    yield from _use(data, run)
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


def _use(data: ModelCardData, run: Run) -> Iterable[str]:
    if not run.loads_with:
        yield "Its weights are in `model.safetensors`, for the class that it was trained with."
        return
    template = _LOAD_ADAPTER if "PEFT" in run.loads_with else _LOAD
    yield template.format(
        name=run.name, base=data.base_model or "BASE_MODEL", num_labels=len(run.class_names)
    )
    names = " and ".join(run.loads_with)
    yield f"It loads with {names} alone: training added nothing to the model."


def _link(id: str, kind: str = "") -> str:
    return f"[{id}](https://huggingface.co/{kind}{id})"


def _enumerate(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _number(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _progress(log_history: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Evaluations during training, each with the terms of the loss that were logged before it."""
    rows, terms = [], {}
    for entry in log_history:
        if "train_runtime" in entry:
            break
        if "loss" in entry:
            names = ("loss", "ce_loss", "contrastive_loss")
            terms = {f"train {name}": _number(entry[name]) for name in names if name in entry}
        elif is_evaluation(entry):
            metrics = {
                name.replace("_", " ", 1): _number(value)
                for name, value in entry.items()
                if is_metric(name) and isinstance(value, int | float)
            }
            # Trainer knows no epoch before its first run.
            place = {"epoch": f"{entry.get('epoch', 0):g}", "step": f"{entry['step']:g}"}
            rows.append({**place, **terms, **metrics})
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])
