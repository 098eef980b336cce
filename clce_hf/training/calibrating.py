"""Fit a temperature on held-out images, and fold it into the classification layer.

Guo et al., *On Calibration of Modern Neural Networks*, arXiv 1706.04599.
"""

import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list, send_to_device
from torch import Tensor, nn
from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import TrainOutput

from clce_hf.errors import abbreviate
from clce_hf.loss.targets import class_targets, is_labeled
from clce_hf.models.broken_weights import broken_weights
from clce_hf.models.logits import logits_of
from clce_hf.models.temperature import (
    check_divides_logits,
    fold_temperature,
    foldable_parameters,
)
from clce_hf.training.beside_training import beside_training, every_row, with_progress
from clce_hf.training.even_batches import fill_last_batches
from clce_hf.training.label_range import check_in_range
from clce_hf.training.labels import split_labels
from clce_hf.training.left_as_it_was import why_left_as_it_was

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 100
"""To fit a temperature on: see benchmarks/studies/calibration_images.py. Of models that are
calibrated well as they are, 100 images cost 0.006 nats on average at worst, and 20 cost 0.025."""


class CalibratingTrainer(Trainer):
    """`transformers.Trainer` that calibrates its model. The constructor is its own.

    Attributes:
        fit_calibration: takes logits (n, C) and class ids (n,); returns `calibration_temperature`
            and what `calibrate` returns beside it.
    """

    fit_calibration: Callable[[Tensor, Tensor], dict[str, float]]

    def train(self, *args: Any, **named: Any) -> TrainOutput:
        """Train as Trainer does; a training that was interrupted is over, too."""
        try:
            return super().train(*args, **named)
        finally:
            self.is_in_train = False

    def calibrate(self, dataset: Any = None) -> dict[str, float]:
        """Divide the classification layer by the temperature that suits held-out images best.

        Call it after `train()`, and save the model then. Predicted classes stay the same, but for
        ties and rounding of weights in half precision, and their probabilities agree better with
        how often they are right, wherever the saved model is loaded. Those of a logit-adjusted
        model stay those for classes of equal size. Checkpoints of the training stay as they are: a
        run that resumes goes on without the temperature. So does `train()` here, with it, except
        that `head_init` starts the layer anew. Where a temperature makes held-out images no
        likelier, as of a model that is calibrated already, the model is left as it was, and a
        warning says so. With `load_best_model_at_end`, the best model is calibrated, since
        `train()` loads it.

        Args:
            dataset: labeled images that were not trained on, 100 at least; by default
                `eval_dataset`. Where that is a dict of several, the name of one of them. Images
                whose label is -100 are left out.

        Returns:
            What is logged, too: `calibration_temperature`, `calibration_images`, and, with the
            endings `_before` and `_after`, `negative_log_likelihood` in nats and
            `calibration_error`, the expected one of 15 bins. Those after are cross-fitted: measured
            on each half of the images with the temperature of the other half. Where the model was
            left as it was, the temperature is 1, and there are `rejected_temperature` and, with it,
            `rejected_negative_log_likelihood`.

        Raises:
            ValueError: during training; for no or too few images, images of one class alone, labels
                that the model does not have or class probabilities; for logits that are not
                finite; and for a classification layer that a temperature cannot be folded into.
                The model is as it was then.
        """
        if self.is_in_train:
            raise ValueError("calibrate() changes the weights: call it after train().")
        name, parameters = check_model_can_be_calibrated(self)
        logits, targets = _predict(self, _named(self, dataset), name, parameters)
        is_used = is_labeled(targets)
        logits, targets = logits[is_used], targets[is_used]
        check_images_can_be_fitted(targets)
        # One result for all processes, whose arithmetic may differ in the last digit.
        (values,) = broadcast_object_list([self.fit_calibration(logits, targets)])
        if not (why := why_left_as_it_was(values)):
            fold_temperature(parameters, values["calibration_temperature"])
        elif self.is_world_process_zero():
            logger.warning(f"calibrate(): {why}")
        self.log(dict(values))
        return values


def check_model_can_be_calibrated(trainer: Trainer) -> tuple[str, list[nn.Parameter]]:
    """Return the name of the classification layer and its weights.

    Raises:
        ValueError: if they cannot be divided by a temperature, naming the layer and the fix.
    """
    if trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled():
        raise ValueError(
            "calibrate() divides the weights of the classification layer, but here they are "
            "sharded, by FSDP or ZeRO-3: save the model, load it in a trainer that does not shard "
            "it, and call calibrate() there."
        )
    layer = getattr(trainer.args, "classification_layer", None)
    return foldable_parameters(cast(nn.Module, trainer.model), layer)


def check_images_can_be_fitted(labels: Tensor) -> None:
    """Raise `ValueError` for too few labeled images, or images of one class alone.

    Args:
        labels: class ids, shape (n,), none of them -100.
    """
    if len(labels) < FEWEST_IMAGES:
        raise ValueError(
            f"calibrate() fits a temperature on held-out images, and {len(labels)} labeled ones "
            f"are too few: give it {FEWEST_IMAGES} at least, as its dataset or as eval_dataset."
        )
    if len(labels.unique()) == 1:
        raise ValueError(
            "calibrate() fits a temperature on held-out images, and all of these are of class "
            f"{int(labels[0])}: give it images of all classes, in their usual shares."
        )


def _named(trainer: Trainer, dataset: Any) -> Any:
    """Return the data set to fit on, or its name among those of the trainer."""
    held_out: Any = trainer.eval_dataset
    several = held_out if dataset is None else dataset
    if several is None:
        raise ValueError(
            "calibrate() needs held-out images, and there is no eval_dataset: give it a data set "
            "that was not trained on."
        )
    if isinstance(dataset, str) and not isinstance(held_out, dict):
        raise ValueError(
            f"calibrate() got the name {dataset!r}, but eval_dataset is not a dict of named data "
            "sets: pass the data set, or call calibrate() for eval_dataset."
        )
    is_unknown = isinstance(dataset, str) and dataset not in held_out
    if isinstance(several, dict) or is_unknown:
        names = list(held_out if is_unknown else several)
        raise ValueError(
            f"calibrate() fits on one data set, and there are {', '.join(map(repr, names))}: name "
            f"one, for example calibrate({names[0]!r})."
        )
    return dataset


def _predict(
    trainer: Trainer, dataset: Any, name: str, parameters: list[nn.Parameter]
) -> tuple[Tensor, Tensor]:
    """Return logits, float32 of shape (n, C), and class ids, in every process.

    On the first batch it checks that the layer can be divided.
    """
    accelerator = trainer.accelerator
    parts: list[tuple[Tensor, Tensor]] = []
    with beside_training(trainer) as model:
        with every_row(trainer.args):
            loader = trainer.get_eval_dataloader(dataset)
        fill_last_batches(loader)
        for batch in with_progress(trainer, loader, "Calibration"):
            batch = send_to_device(batch, accelerator.device)
            inputs, labels = split_labels(batch, trainer.label_names, model)

            def run(inputs: dict[str, Any] = inputs) -> Tensor:
                with accelerator.autocast():
                    return logits_of(model(**inputs)).float()

            logits = run()
            targets = class_targets(labels, logits, logits.shape[1])
            gathered = accelerator.gather_for_metrics((logits, targets))
            # In all processes together.
            _check(gathered[0], gathered[1], cast(nn.Module, trainer.model))
            if not parts:
                check_divides_logits(model, name, parameters, run)
            parts.append(tuple(tensor.cpu() for tensor in gathered))
    if not parts:
        raise ValueError("calibrate() fits on held-out images, and the data set holds none.")
    all_logits, all_targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return all_logits, all_targets


def _check(logits: Tensor, targets: Tensor, model: nn.Module) -> None:
    if targets.is_floating_point():
        raise ValueError(
            "calibrate() fits on class ids, but the labels are class probabilities: give it images "
            "that are not mixed."
        )
    check_in_range(targets, logits.shape[1], " of the images to calibrate on")
    if not logits.isfinite().all():
        weights = broken_weights(model)
        raise ValueError(
            "calibrate() fits on logits, and some are not finite"
            + (
                f", nor are the weights {abbreviate(weights)}: the training diverged, so take a "
                "checkpoint from before that, or train again with a lower learning_rate."
                if weights
                else ": check the images for NaN, or take bf16 for fp16."
            )
        )
