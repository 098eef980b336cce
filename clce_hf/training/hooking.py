"""`HookingTrainer`: Transformers' Trainer that hooks its model for as long as it runs.

Outside `train`, `evaluate` and `predict` the model is as it was handed over: it can be exported,
quantized, pickled and changed. A projection head is a child of the model in training and while it
is saved, and the trainer's otherwise.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.projection import ProjectionHead, attached, join_optimizer
from clce_hf.training import checks
from clce_hf.training.memory import EmbeddingMemory


class HookingTrainer(Trainer):
    """`transformers.Trainer` that reads embeddings. The constructor is its own.

    Attributes:
        projection_head: between the embeddings and the contrastive term; None without one.
    """

    args: Any  # TrainingArguments with the fields of CLCEConfig

    def __init__(self, *args: Any, **named: Any) -> None:
        self.projection_head: ProjectionHead | None = None
        self._memory: EmbeddingMemory | None = None
        self._hooked: EmbeddingCapture | None = None
        self._is_running = False
        self._stays_in_eval = False
        self._trains_below = False
        self._unwrapped: tuple[Any, nn.Module] | None = None
        super().__init__(*args, **named)

    def bare(self, model: Any) -> nn.Module:
        """Return a model without what wraps it to be run: DDP, FSDP or compilation."""
        if self._unwrapped is not None and self._unwrapped[0] is model:
            return self._unwrapped[1]
        bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        if self._is_running:  # Accelerate looks at all modules, too long for every step
            self._unwrapped = model, bare
        return bare

    def capture_of(self, model: nn.Module) -> EmbeddingCapture | None:
        """Return what reads the embeddings of a bare model; None where nothing is contrasted.

        Raises:
            ValueError: if `contrastive_weight` was 0 when the run began, and is not now.
        """
        if self.args.contrastive_weight == 0:
            return None
        if self._is_running and self._hooked is None:
            raise ValueError(
                "contrastive_weight was 0 where the run began, so there is no memory and no "
                f"projection head for the {self.args.contrastive_weight:g} that it is now: begin "
                "with a small weight, such as 1e-6, instead of 0."
            )
        if self._hooked is not None and self._hooked.model is model:
            return self._hooked
        return EmbeddingCapture(model, self.args.classification_layer, self.projection_head)

    def _check_trains_below(self, capture: EmbeddingCapture) -> None:
        """Raise `ValueError` for a frozen backbone, at the first step of a training that contrasts.

        Not before: until then a callback may unfreeze it, and whoever evaluates need not.
        """
        if not self._trains_below and self.projection_head is None:
            checks.check_trains_below(capture.model, capture.layer)
        self._trains_below = True

    def _is_training(self, model: nn.Module) -> bool:
        """Whether a pass is one of training: gradients are recorded, and the model's mode is that.

        Some models stay in evaluation mode in a step of training, to keep the statistics of their
        batch normalization.
        """
        return torch.is_grad_enabled() and (self._stays_in_eval or model.training)

    def training_step(self, model: nn.Module, *args: Any, **named: Any) -> torch.Tensor:
        """Train on a batch as Trainer does."""
        model.train()  # as Trainer is about to do
        self._stays_in_eval = not model.training
        try:
            return super().training_step(model, *args, **named)
        finally:
            self._stays_in_eval = False

    def _inner_training_loop(self, *args: Any, **named: Any) -> TrainOutput:
        # Once for each attempt of auto_find_batch_size, which starts anew.
        self._trains_below = False
        is_contrasted = self.args.contrastive_weight > 0
        self._memory = EmbeddingMemory(self.args.memory_size if is_contrasted else 0)
        try:
            with self._with_head(), self._with_hooks():
                return super()._inner_training_loop(*args, **named)
        finally:
            self._memory = None

    def evaluation_loop(self, *args: Any, **named: Any) -> EvalLoopOutput:
        """Evaluate as Trainer does, with the model hooked meanwhile."""
        with self._with_hooks():
            return super().evaluation_loop(*args, **named)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimizer, for a projection head, too; one that was given takes it up."""
        is_given = self.optimizer is not None
        with self._with_head():
            optimizer = super().create_optimizer(model)
        if is_given and self.projection_head is not None:
            join_optimizer(optimizer, self.projection_head)
        return optimizer

    def save_model(self, *args: Any, **named: Any) -> None:
        """Save as Trainer does, and a projection head beside the model."""
        with self._with_head():
            super().save_model(*args, **named)

    def _with_head(self) -> contextlib.AbstractContextManager[None]:
        return attached(self.bare(self.model), self.projection_head)

    @contextlib.contextmanager
    def _with_hooks(self) -> Iterator[None]:
        """Hook the model meanwhile; an evaluation within training finds the hooks in place."""
        if self._is_running:
            yield
            return
        self._hooked = self.capture_of(self.bare(self.model))
        self._is_running = True
        try:
            with self._hooked or contextlib.nullcontext():
                yield
        finally:
            self._is_running, self._hooked, self._unwrapped = False, None, None
