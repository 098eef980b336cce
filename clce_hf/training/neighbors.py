"""`NeighborsTrainer`: Transformers' Trainer that measures k-NN accuracy for a callback.

The embeddings of evaluation images are read in the forward pass that evaluates them, and forgotten
once their neighbors have voted.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from clce_hf.loss.targets import IGNORE_INDEX
from clce_hf.loss.unit_length import to_unit_length
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.classification_layer import find_classification_layer
from clce_hf.models.neighbors import majority_of_nearest
from clce_hf.training.hooking import HookingTrainer
from clce_hf.training.knn_callback import KNNCallback
from clce_hf.training.labels import labels_of
from clce_hf.training.voters import Voters, check_first_voters, draw_voters, embed_voters


class NeighborsTrainer(HookingTrainer):
    """`transformers.Trainer` that heeds `KNNCallback`. The constructor is its own."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._watched: EmbeddingCapture | None = None
        self._vote: _Vote | None = None
        self._drawn: tuple[Any, Voters] | None = None
        super().__init__(*args, **named)

    def _inner_training_loop(self, *args: Any, **named: Any) -> TrainOutput:
        callback = self._knn_callback()
        if callback is not None and self.args.eval_strategy != "no":
            # What cannot vote is refused before a step.
            voters = self._voters(callback)
            check_first_voters(self, self.bare(self.model), voters.loader)
        # Hooked all the time, since what is compiled does not see later hooks.
        with self._watching():
            return super()._inner_training_loop(*args, **named)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as Trainer does, with k-NN accuracy among the metrics of labeled images.

        `predict` leaves it out where there are no training images.
        """
        arguments = dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        with self._watching():
            if self._watched is None or (description == "Prediction" and not self._has_voters):
                return super().evaluation_loop(*arguments)
            self._vote = _Vote()
            try:
                output = super().evaluation_loop(*arguments)
                accuracy = self._vote.accuracy()
            finally:
                self._vote = None
        if accuracy is not None:
            cast(dict[str, float], output.metrics)[f"{metric_key_prefix}_knn_accuracy"] = accuracy
        return output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **named: Any
    ) -> tuple[Any, Any, Any]:
        """Predict as Trainer does, and have the neighbors of the images vote."""
        vote, capture = self._vote, self._watched
        labels = labels_of(inputs, self.label_names)
        if vote is None or capture is None or not isinstance(labels, Tensor):
            return super().prediction_step(model, inputs, *args, **named)
        callback = cast(KNNCallback, self._knn_callback())
        if vote.voters is None:
            vote.voters = embed_voters(self, model, capture, self._voters(callback).loader)

        def step() -> tuple[Any, Any, Any]:
            return super(NeighborsTrainer, self).prediction_step(model, inputs, *args, **named)

        outputs, embeddings = capture.run(cast(Any, step), {})
        hits = vote.hits(embeddings, labels.to(embeddings.device), self._voters(callback).k)
        vote.counted.append(self.accelerator.gather_for_metrics(hits))
        return outputs

    def _voters(self, callback: KNNCallback) -> Voters:
        drawn_from = callback, callback.train_dataset, self.train_dataset
        if self._drawn is None or any(
            old is not new for old, new in zip(self._drawn[0], drawn_from, strict=True)
        ):
            self._drawn = drawn_from, draw_voters(self, callback)
        return self._drawn[1]

    @property
    def _has_voters(self) -> bool:
        callback = self._knn_callback()
        given = None if callback is None else callback.train_dataset
        return given is not None or self.train_dataset is not None

    def _knn_callback(self) -> KNNCallback | None:
        callbacks = self.callback_handler.callbacks
        asked = [callback for callback in callbacks if isinstance(callback, KNNCallback)]
        if len(asked) > 1:
            raise ValueError(
                f"CLCETrainer logs one k-NN accuracy, and there are {len(asked)} KNNCallbacks: "
                "take one away with trainer.remove_callback(KNNCallback)."
            )
        return asked[0] if asked else None

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Hook the model meanwhile, where a callback asks for it."""
        callback = self._knn_callback()
        if callback is None or self._watched is not None:
            yield
            return
        callback.is_heard = True
        bare = self.bare(self.model)
        # By its name: that its output is the logits cannot be seen from a step's outputs.
        name, _ = find_classification_layer(bare, self.args.classification_layer)
        self._watched = EmbeddingCapture(bare, name)
        try:
            with self._watched:
                yield
        finally:
            self._watched = None


class _Vote:
    """Counts the images of one evaluation that their neighbors classify right.

    Attributes:
        voters: unit-length embeddings, shape (m, d), and their classes, once they are embedded.
        counted: of each image of all processes 1 for a hit, 0 for none, -1 without a label.
    """

    def __init__(self) -> None:
        self.voters: tuple[Tensor, Tensor] | None = None
        self.counted: list[Tensor] = []

    def hits(self, embeddings: Tensor, labels: Tensor, k: int) -> Tensor:
        """Return what is counted of a batch: embeddings (n, d) and labels (n,)."""
        voters, classes = cast(tuple[Tensor, Tensor], self.voters)
        similarities = to_unit_length(embeddings) @ voters.T
        predicted = majority_of_nearest(similarities, classes, k, int(classes.max()) + 1)
        # Embeddings of a model that has diverged are near to none.
        hits = (predicted == labels) & similarities.isfinite().all(1)
        return hits.long().masked_fill(labels == IGNORE_INDEX, -1)

    def accuracy(self) -> float | None:
        """Return the share of hits, None without a labeled image."""
        if not self.counted:
            return None
        counted = torch.cat(self.counted)
        counted = counted[counted >= 0]
        return counted.double().mean().item() if len(counted) else None
