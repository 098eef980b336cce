"""Read the pooled embeddings that enter a classifier's last layer.

No model code is copied and no extra output is requested: a hook on the classification layer sees
its input in the one forward pass that makes the logits. A projection head runs inside that pass,
too, in a hook on the whole model, which returns its output beside the model's:
DistributedDataParallel treats parameters as unused if no output depends on them.
"""

import contextlib
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clce_hf.models.classification_layer import (
    HOW_TO_NAME_IT,
    candidate_layers,
    find_classification_layer,
    num_classes_of,
)
from clce_hf.models.logits import RETURN_LOGITS, logits_by_size, possible_logits


class EmbeddingCapture:
    """Reads the embeddings of a model's forward pass.

    The hooks are on the model within `with capture:`, which may be nested, and for the time of one
    `run` elsewhere: before and after, the model is as it was handed over.

    Args:
        model: the bare model, whatever wraps it when it is run.
        classification_layer: dotted name of its classification layer; None searches for it.
        projection: maps embeddings (n, d) to (n, k), which are then returned in their place.

    Raises:
        ValueError: if the layer cannot be found.
    """

    def __init__(
        self,
        model: nn.Module,
        classification_layer: str | None = None,
        projection: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.name, self.layer = find_classification_layer(model, classification_layer)
        self.projection = projection
        self._named = classification_layer
        self._places: dict[int, int] = {}
        self._is_running = False
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._entered = 0
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        if not self._entered:
            self._hook()
        self._entered += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._unhook()

    def run(self, wrapped: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor]:
        """Run the model; return its outputs and the embeddings, shape (n, d), or (n, k) projected.

        Args:
            wrapped: the model as training calls it: wrapped for DDP, compiled or bare.
            inputs: its keyword arguments.

        Raises:
            ValueError: if the layer did not run or, at the first call, one that was searched for
                did not return the model's logits.
        """
        outputs, produced, embeddings = self._run(wrapped, inputs)
        if self._named is None:
            self._logits(outputs, produced)
        return outputs, embeddings

    def run_for_logits(
        self, wrapped: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Any, Tensor, Tensor]:
        """Run the model as `run` does; return its outputs, the logits among them, the embeddings.

        Raises:
            ValueError: as `run`, and if the logits cannot be told from other outputs.
        """
        outputs, produced, embeddings = self._run(wrapped, inputs)
        return outputs, self._logits(outputs, produced), embeddings

    def _run(self, wrapped: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor, Tensor]:
        """Run the model; return its outputs, that of the layer, and the embeddings."""
        self._find_again()
        self._is_running = True
        try:
            with self:
                returned = wrapped(**inputs)
            pooled, produced = self._input, self._output
        finally:
            self._is_running = False
            self._input = self._output = None
        if pooled is None or produced is None:
            raise ValueError(
                f"The layer {self.name!r} did not run in the forward pass. {self._other_layers()}"
            )
        if self._projects_in_pass:
            outputs, projected = returned
            return outputs, produced, projected
        embeddings = self._as_vectors(pooled)
        if self.projection is not None:
            embeddings = self.projection(embeddings)
        return returned, produced, embeddings

    def _hook(self) -> None:
        self._hooks.append(self.layer.register_forward_hook(self._keep, with_kwargs=True))
        if self.projection is not None:
            self._hooks.append(self.model.register_forward_hook(self._project))

    def _unhook(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _find_again(self) -> None:
        """Go over to the layer that a script has put in place of the one that was found."""
        with contextlib.suppress(AttributeError):
            if self.model.get_submodule(self.name) is self.layer:
                return
        self._unhook()
        self.name, self.layer = find_classification_layer(self.model, self._named)
        self._places = {}
        if self._entered:
            self._hook()

    def _keep(self, module: nn.Module, args: tuple, *more: Any) -> None:
        if not self._is_running:  # other callers' tensors must not be held or copied with the model
            return
        # A copy of the model may run this hook without keyword arguments, once it is quantized.
        kwargs, self._output = more
        self._input = args[0] if args else next(iter(kwargs.values()))

    @torch.compiler.disable  # runs after the compiled forward pass, on the tensor that it left
    def _project(self, module: nn.Module, args: tuple, outputs: Any) -> Any:
        # Other callers of the model get its plain outputs.
        if not (self._is_running and self._projects_in_pass and self._input is not None):
            return None
        return outputs, cast(nn.Module, self.projection)(self._as_vectors(self._input))

    @property
    def _projects_in_pass(self) -> bool:
        """Whether it may be a pass of training: some models stay in evaluation mode then."""
        is_training = self.model.training or torch.is_grad_enabled()
        return self.projection is not None and is_training

    def _as_vectors(self, pooled: Tensor) -> Tensor:
        vectors = pooled.flatten(1)
        if pooled.dim() < 2 or vectors.shape[1] != max(pooled.shape[1:]):
            raise ValueError(
                f"The input of {self.name!r} is not one vector per image: its shape is "
                f"{tuple(pooled.shape)}. {self._other_layers()}"
            )
        return vectors

    def _logits(self, outputs: Any, produced: Any) -> Tensor:
        """Return the logits, at the place where the first outputs of as many parts had them."""
        possible = possible_logits(outputs)
        if (parts := len(possible)) not in self._places:
            self._places[parts] = self._place(possible, produced)
        return possible[self._places[parts]]

    def _place(self, possible: list[Tensor], produced: Any) -> int:
        """Return the place of the logits: that of the layer's output, as far as it can be.

        Another is taken only if the layer is named: it is the mean of two heads in some models.
        """
        same = [i for i, output in enumerate(possible) if _is_same(output, produced)]
        if 0 in same:
            return 0
        if self._named is not None and not same:
            logits = logits_by_size(possible, *num_classes_of(self.model, self._named))
            return next(i for i, output in enumerate(possible) if output is logits)
        if self._named is not None:  # what it makes may be the logits, or what the first is made of
            raise ValueError(
                f"The model returns what {self.name!r} makes, but something else before it. "
                f"{RETURN_LOGITS}"
            )
        if same:
            return same[0]
        raise ValueError(
            f"The layer {self.name!r} was taken for the classification layer, but its output is "
            f"not the model's logits. {self._other_layers()}"
        )

    def _other_layers(self) -> str:
        return f"Candidates are {', '.join(candidate_layers(self.model))}. {HOW_TO_NAME_IT}"


def _is_same(output: Tensor, produced: Any) -> bool:
    if not isinstance(produced, Tensor) or output.numel() != produced.numel():
        return False
    flat = [tensor.detach().flatten().float() for tensor in (output, produced)]
    # NaN of a model that diverged is as good as any other logit here.
    return torch.allclose(*flat, rtol=0, atol=0, equal_nan=True)
