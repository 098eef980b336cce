"""The model card of an image classifier: what the Hub shows of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData
from torch import nn
from transformers import PreTrainedModel

from clce_hf.evaluation.table import Table
from clce_hf.hub.base_model import is_on_hub, leave_out_folders
from clce_hf.hub.calibration import CardCalibration, card_calibration
from clce_hf.hub.results import (
    Source,
    eval_results,
    final_metrics,
    is_evaluation,
    is_metric,
    sources_by_metric,
)
from clce_hf.models.adapted_config import ADAPTED_CONFIG

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_PACKAGES = ("clce_hf", "transformers", "torch", "datasets", "accelerate")


@dataclass(frozen=True)
class CardMethod:
    """How a card names the way a model was trained.

    Attributes:
        sentence: ends "trained ... with", in Markdown.
        citation: in Markdown.
        tags: of the Hub.
        loss: what the `loss` of an evaluation is, in Markdown.
    """

    sentence: str
    citation: str
    tags: tuple[str, ...] = ()
    loss: str = "the cross-entropy alone"


@dataclass(frozen=True)
class CardFacts:
    """The facts of a run that its card reports.

    Attributes:
        name: the repository's id on the Hub, where it has one, else a name for the title.
        class_names: in the order of the logits; empty where the model has none.
        trained_on: where the training data came from.
        evaluated_on: the same of data sets, by the prefix of their metrics.
        method: how the model was trained.
        settings: of the training, by name.
        log_history: of `TrainerState`.
        best_step: the step whose model was kept; None for the last.
        pictures: files beside the card, by caption.
        is_for_equal_classes: whether logits were adjusted for the sizes of the classes.
        loads_with: the libraries that load the model; empty for a custom class.
        bases_of_adapters: models that PEFT adapters name as theirs.
        arguments: of `create_model_card`, by name.
    """

    name: str
    class_names: Sequence[str]
    trained_on: Source
    evaluated_on: Mapping[str, Source]
    method: CardMethod
    settings: Mapping[str, str]
    log_history: list[dict[str, Any]]
    best_step: int | None
    pictures: Mapping[str, Path]
    is_for_equal_classes: bool
    loads_with: Sequence[str]
    bases_of_adapters: Sequence[str]
    arguments: Mapping[str, Any]


def rewrite_model_card(file: Path, facts: CardFacts) -> None:
    """Complete the metadata that Trainer wrote to `file`, and describe the run in its own words.

    The card holds nothing of the machine beyond the metadata and the facts. A base model that is a
    folder is left out.
    """
    data = ModelCard.load(file).data
    results = final_metrics(facts.log_history, facts.best_step)
    calibration = card_calibration(facts.log_history)
    _complete(data, facts, _of_the_model(results, calibration))
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=data.model_name,
        name=facts.name,
        class_names=list(facts.class_names),
        base=_link(data.base_model) if isinstance(data.base_model, str) else "An image classifier",
        base_model=data.base_model,
        images=_link(data.datasets[0], "datasets/") if data.datasets else "images",
        method=facts.method,
        results=_table("metric", {name: _number(value) for name, value in results.items()}),
        calibration=calibration,
        is_for_equal_classes=facts.is_for_equal_classes,
        loads_with=facts.loads_with,
        adapted_config=ADAPTED_CONFIG,
        settings=_table("setting", facts.settings),
        pictures=[(caption, picture.name) for caption, picture in facts.pictures.items()],
        progress=_progress(facts.log_history),
        versions=[(package, version(package)) for package in _PACKAGES],
    )
    card.save(file)


def _of_the_model(
    results: Mapping[str, float], calibration: CardCalibration | None
) -> Mapping[str, float]:
    """Leave out what no longer is true of the weights."""
    changed = () if calibration is None else calibration.not_of_the_model
    return {name: value for name, value in results.items() if name not in changed}


def loads_with(model: nn.Module) -> list[str]:
    """Name the libraries that load a saved model; empty for a custom class."""
    is_wrapped = hasattr(model, "get_base_model")
    base = cast(Any, model).get_base_model() if is_wrapped else model
    if not isinstance(base, PreTrainedModel):
        return []
    is_adapter = is_wrapped or bool(getattr(base, "peft_config", None))
    is_timm = base.config.model_type == "timm_wrapper"
    return ["Transformers", *["timm"] * is_timm, *["PEFT"] * is_adapter]


def _complete(data: ModelCardData, facts: CardFacts, results: Mapping[str, float]) -> None:
    """Fill in the metadata of a card."""
    arguments = facts.arguments
    sources = sources_by_metric(results, facts.evaluated_on)
    # PEFT puts what was loaded in the place of what the user named.
    leave_out_folders(data, arguments.get("finetuned_from"), *facts.bases_of_adapters)
    named = [name for name in _listed(arguments.get("dataset_tags")) if is_on_hub(name)]
    loaded = [facts.trained_on, *sources.values()]
    on_hub = named or [source.name for source in loaded if source.is_on_hub]
    data.datasets = list(dict.fromkeys(on_hub)) or None
    data.pipeline_tag = "image-classification"
    tags = [*(data.tags or []), "image-classification", *facts.method.tags]
    data.tags = list(dict.fromkeys(tags))
    data.metrics = [name for name in results if not name.endswith("loss")] or None
    data.model_name = arguments.get("model_name") or facts.name.split("/")[-1]
    described = {
        "type": named,
        "name": arguments.get("dataset"),
        "args": arguments.get("dataset_args"),
    }
    first = {key: next(iter(_listed(value)), None) for key, value in described.items()}
    data.eval_results = eval_results(results, sources, first) or None


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values) if isinstance(values, list | tuple) else [values]


def _link(id: str, kind: str = "") -> str:
    return f"[{id}](https://huggingface.co/{kind}{id})"


def _number(value: float) -> str:
    return f"{value:z.4f}" if isinstance(value, float) else str(value)


def _table(name: str, values: Mapping[str, str]) -> str:
    return Table("", (name, "value"), list(values.items())).as_markdown() if values else ""


def _progress(log_history: list[dict[str, Any]]) -> str:
    """Tabulate the evaluations during training, each with the training losses logged before it."""
    rows, losses = [], {}
    for entry in log_history:
        if "train_runtime" in entry:
            break
        if "loss" in entry:
            names = [name for name in entry if name.endswith("loss")]
            losses = {f"train {name}": _number(entry[name]) for name in names}
        elif is_evaluation(entry):
            metrics = {
                name.replace("_", " ", 1): _number(value)
                for name, value in entry.items()
                if is_metric(name) and isinstance(value, int | float)
            }
            # Trainer knows no epoch before its first run.
            place = {"epoch": f"{entry.get('epoch', 0):g}", "step": f"{entry['step']:g}"}
            rows.append({**place, **losses, **metrics})
    header = list(dict.fromkeys(name for row in rows for name in row))
    entries = [[row.get(name, "") for name in header] for row in rows]
    return Table("", header, entries).as_markdown() if rows else ""
