"""`MeasuringTrainer`: Transformers' Trainer that logs the terms of the loss beside it.

What others read of an evaluation, callbacks and a hyperparameter search among them, is what stock
Trainer gives them: the contrastive term joins the log and the returned metrics alone.
"""

from collections.abc import Callable
from typing import Any, cast

from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import (
    EvalLoopOutput,
    PredictionOutput,
    TrainOutput,
    default_compute_objective,
)

from clce_hf.training.even_batches import fill_last_batches
from clce_hf.training.meters import Meters


class MeasuringTrainer(Trainer):
    """`transformers.Trainer` that logs the terms of the loss. The constructor is its own."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._meters = Meters(self.is_world_process_zero())

    # ---- training ----

    def _inner_training_loop(self, *args: Any, **named: Any) -> TrainOutput:
        # Once for each attempt of auto_find_batch_size, which starts anew.
        self._meters.start_training()
        return super()._inner_training_loop(*args, **named)

    def _maybe_log_save_evaluate(self, *args: Any, **named: Any) -> None:
        # Here all processes are together; `log` may be called on one of them alone.
        if self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            self._meters.end_interval(self.accelerator)
        super()._maybe_log_save_evaluate(*args, **named)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms of the loss since the last time beside `loss`."""
        if "loss" in logs:
            logs.update(self._meters.take_interval())
        added = self._meters.evaluated_with(logs)
        logs.update(added)
        super().log(logs, start_time)
        for name in added:
            logs.pop(name, None)

    # ---- evaluation ----

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as Trainer does, and measure the contrastive term.

        The loss of a stream is the mean over its images: Trainer weights a short last batch of a
        stream like a full one.
        """
        fill_last_batches(dataloader)
        self._meters.start_evaluation(dataloader, self.args.eval_batch_size)
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        loss = self._meters.end_evaluation(dataloader, self.accelerator, metric_key_prefix)
        if loss is not None:
            cast(dict[str, float], output.metrics)[f"{metric_key_prefix}_loss"] = loss
        return output

    def evaluate(self, *args: Any, **named: Any) -> dict[str, float]:
        """Evaluate, with `eval_contrastive_loss` among the metrics.

        It is the mean of the contrastive term over the anchors that have a positive in their batch
        of the evaluation; it is left out where no image has one.
        """
        metrics = super().evaluate(*args, **named)
        return {**metrics, **self._meters.take_evaluated_with(metrics)}

    def predict(self, *args: Any, **named: Any) -> PredictionOutput:
        """Predict, with the contrastive term among the metrics, as in `evaluate`."""
        output = super().predict(*args, **named)
        metrics = cast(dict[str, float], output.metrics)
        metrics.update(self._meters.take_evaluated_with(metrics))
        return output

    def hyperparameter_search(
        self,
        hp_space: Any = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        *args: Any,
        **named: Any,
    ) -> Any:
        """Search as Trainer does; its default objective leaves the contrastive term out."""
        return super().hyperparameter_search(
            hp_space, compute_objective or _objective_of_stock_metrics, *args, **named
        )


def _objective_of_stock_metrics(metrics: dict[str, float]) -> float:
    stock = {k: v for k, v in metrics.items() if not k.endswith("_contrastive_loss")}
    return default_compute_objective(stock)
