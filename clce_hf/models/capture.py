"""Find a classifier's last layer and read the pooled embeddings that enter it.

No model code is copied and no extra output is requested: a hook on the classification layer sees
its input in the one forward pass that makes the logits. A projection head runs inside that pass,
too, in a hook on the whole model, which returns its output beside the model's:
DistributedDataParallel treats parameters as unused if no output depends on them.
"""

import contextlib
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

PROJECTION_NAME = "clce_projection_head"
"""Name of a projection head as a submodule of the model that it is trained with."""

_HOW_TO_NAME_IT = (
    "Name it with classification_layer, for example classification_layer='classifier'."
)


def find_classification_layer(
    model: nn.Module, classification_layer: str | None = None
) -> tuple[str, nn.Module]:
    """Return the layer whose input is the pooled embedding, and its dotted name.

    That is the last linear layer or 1 x 1 convolution, in the order of registration, that has
    `config.num_labels` outputs; a layer that PEFT wraps counts as one. `EmbeddingCapture` checks on
    the first batch that its output really is the logits.

    Args:
        model: an image classifier.
        classification_layer: dotted name of the layer; None searches for it.

    Raises:
        ValueError: if there is no such layer.
    """
    modules = dict(model.named_modules())
    if classification_layer is not None:
        if classification_layer not in modules:
            raise ValueError(
                f"classification_layer={classification_layer!r} is not a module of "
                f"{type(model).__name__}; its last ones are {', '.join(list(modules)[-5:])}."
            )
        return classification_layer, modules[classification_layer]
    candidates = candidate_layers(model)
    if not candidates:
        raise ValueError(
            f"No classification layer found in {type(model).__name__}: no linear layer has as many "
            f"outputs as the model has labels ({_num_labels(model)}). {_HOW_TO_NAME_IT}"
        )
    return candidates[-1], modules[candidates[-1]]


def logits_of(outputs: Any) -> Tensor:
    """Return the logits among a model's outputs: by name, else the first that is not a scalar."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, dict):
        if "logits" in outputs:
            return outputs["logits"]
        outputs = tuple(outputs.values())
    return next(output for output in outputs if isinstance(output, Tensor) and output.dim() > 0)


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
        self._is_checked = classification_layer is not None
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
            ValueError: if the layer did not run or, at the first call, did not return the model's
                logits.
        """
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
        projected = None
        if self.projection is not None and self.model.training:
            returned, projected = returned
        if not self._is_checked:
            self._check_produces_logits(produced, returned)
            self._is_checked = True
        if projected is not None:
            return returned, projected
        embeddings = self._as_vectors(pooled)
        return returned, embeddings if self.projection is None else self.projection(embeddings)

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
        self._is_checked = self._named is not None
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
        if not (
            self._is_running and module.training and self.projection and self._input is not None
        ):
            return None
        return outputs, self.projection(self._as_vectors(self._input))

    def _as_vectors(self, pooled: Tensor) -> Tensor:
        vectors = pooled.flatten(1)
        if pooled.dim() < 2 or vectors.shape[1] != max(pooled.shape[1:]):
            raise ValueError(
                f"The input of {self.name!r} is not one vector per image: its shape is "
                f"{tuple(pooled.shape)}. {self._other_layers()}"
            )
        return vectors

    def _check_produces_logits(self, produced: Tensor, outputs: Any) -> None:
        logits = logits_of(outputs)
        same_size = produced.numel() == logits.numel()
        flat = [tensor.detach().flatten().float() for tensor in (produced, logits)]
        # NaN of a model that diverged is as good as any other logit here.
        if not same_size or not torch.allclose(*flat, rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                f"The layer {self.name!r} was taken for the classification layer, but its output "
                f"is not the model's logits. {self._other_layers()}"
            )

    def _other_layers(self) -> str:
        return f"Candidates are {', '.join(candidate_layers(self.model))}. {_HOW_TO_NAME_IT}"


def _num_labels(model: nn.Module) -> int | None:
    return getattr(getattr(model, "config", None), "num_labels", None)


def candidate_layers(model: nn.Module) -> list[str]:
    """Return the names of the outermost layers with as many outputs as the model has labels."""
    num_labels = _num_labels(model)
    names: list[str] = []
    for name, module in model.named_modules():
        outputs = getattr(module, "out_features", None)
        if outputs is None and getattr(module, "kernel_size", None) == (1, 1):
            outputs = getattr(module, "out_channels", None)
        # A projection head of an earlier trainer may have as many outputs as there are labels.
        skipped = (PROJECTION_NAME, *(f"{outer}." for outer in names[-1:]))
        if outputs is not None and num_labels in (None, outputs) and not name.startswith(skipped):
            names.append(name)
    return names
