"""Find a classifier's last layer and read the pooled embeddings that enter it.

No model code is copied and no extra output is asked for: a hook on the classification layer sees
its input in the one forward pass that makes the logits. Where there is a projection head, a hook on
the whole model runs it inside that pass, too, and returns its output beside the model's, since
DistributedDataParallel takes parameters that no output depends on for unused.
"""

from typing import Any

import torch
from torch import Tensor, nn

PROJECTION_NAME = "projection_head"
"""Name of a projection head as a submodule of the model that it is trained with."""

_HOW_TO_NAME_IT = "Name it with embedding_module, for example embedding_module='classifier'."


def find_classification_layer(
    model: nn.Module, embedding_module: str | None = None
) -> tuple[str, nn.Module]:
    """Return the layer whose input is the pooled embedding, and its dotted name.

    That is the last linear layer, or 1 x 1 convolution, in the order of registration with
    `config.num_labels` outputs; a layer that PEFT wraps counts as one. Whether its output really is
    the logits is checked by `EmbeddingCapture` on the first batch.

    Args:
        model: an image classifier.
        embedding_module: the dotted name of the layer, which then is not searched for.

    Raises:
        ValueError: if there is no such layer.
    """
    modules = dict(model.named_modules())
    if embedding_module is not None:
        if embedding_module not in modules:
            raise ValueError(
                f"embedding_module={embedding_module!r} is no module of {type(model).__name__}; "
                f"its last ones are {', '.join(list(modules)[-5:])}."
            )
        return embedding_module, modules[embedding_module]
    candidates = _candidates(model)
    if not candidates:
        raise ValueError(
            f"No classification layer found in {type(model).__name__}: no linear layer has as many "
            f"outputs as the model has labels ({_num_labels(model)}). {_HOW_TO_NAME_IT}"
        )
    return candidates[-1], modules[candidates[-1]]


def logits_of(outputs: Any) -> Tensor:
    """Return the logits among a model's outputs: by name, else the first that is no scalar loss."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, dict):
        if "logits" in outputs:
            return outputs["logits"]
        outputs = tuple(outputs.values())
    return next(output for output in outputs if isinstance(output, Tensor) and output.dim() > 0)


class EmbeddingCapture:
    """Hooks that keep the embeddings of the last forward pass of a model.

    Args:
        model: the model to be trained, before anything wraps it.
        embedding_module: dotted name of its classification layer; found where None.

    Raises:
        ValueError: if the layer cannot be found.
    """

    def __init__(self, model: nn.Module, embedding_module: str | None = None) -> None:
        self.model = model
        self.name, self.layer = find_classification_layer(model, embedding_module)
        self.projection: nn.Module | None = None
        self._is_checked = embedding_module is not None
        self._is_running = False
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._hooks = [self.layer.register_forward_hook(self._keep, with_kwargs=True)]

    def project_with(self, projection: nn.Module) -> None:
        """Return projected embeddings from now on; the head maps (n, d) to (n, k)."""
        self.projection = projection
        self._hooks.append(self.model.register_forward_hook(self._project))

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def run(self, wrapped: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor]:
        """Run the model, and return its outputs and the embeddings, shape (n, d or k).

        Args:
            wrapped: the model as it is called in training, wrapped for DDP, compiled or bare.
            inputs: its keyword arguments.

        Raises:
            ValueError: if the layer did not run, or, at the first call, if what it returned is not
                the model's logits.
        """
        self._is_running = True
        try:
            returned = wrapped(**inputs)
        finally:
            self._is_running = False
        pooled, produced = self._input, self._output
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
        embeddings = self._one_vector_each(pooled)
        return returned, embeddings if self.projection is None else self.projection(embeddings)

    def _keep(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if not self._is_running:  # what others run is not to be held, nor copied with the model
            return
        self._input = args[0] if args else next(iter(kwargs.values()))
        self._output = output

    @torch.compiler.disable  # runs after the compiled forward pass, on what that pass kept
    def _project(self, module: nn.Module, args: tuple, outputs: Any) -> Any:
        # Whoever else calls the model gets what it returns.
        if not (
            self._is_running and module.training and self.projection and self._input is not None
        ):
            return None
        return outputs, self.projection(self._one_vector_each(self._input))

    def _one_vector_each(self, pooled: Tensor) -> Tensor:
        vectors = pooled.flatten(1)
        if pooled.dim() < 2 or vectors.shape[1] != max(pooled.shape[1:]):
            raise ValueError(
                f"The input of {self.name!r} is not one vector an image: its shape is "
                f"{tuple(pooled.shape)}. {self._other_layers()}"
            )
        return vectors

    def _check_produces_logits(self, produced: Tensor, outputs: Any) -> None:
        logits = logits_of(outputs)
        same_size = produced.numel() == logits.numel()
        if not same_size or not torch.equal(
            produced.detach().flatten().float(), logits.detach().flatten().float()
        ):
            raise ValueError(
                f"The layer {self.name!r} was taken for the classification layer, but what it "
                f"returns is not the model's logits. {self._other_layers()}"
            )

    def _other_layers(self) -> str:
        return f"Candidates are {', '.join(_candidates(self.model))}. {_HOW_TO_NAME_IT}"


def _num_labels(model: nn.Module) -> int | None:
    return getattr(getattr(model, "config", None), "num_labels", None)


def _candidates(model: nn.Module) -> list[str]:
    """Names of the layers with as many outputs as there are labels, outermost ones only."""
    num_labels = _num_labels(model)
    names: list[str] = []
    for name, module in model.named_modules():
        outputs = getattr(module, "out_features", None)
        if outputs is None and getattr(module, "kernel_size", None) == (1, 1):
            outputs = getattr(module, "out_channels", None)
        # A projection head of an earlier trainer may have as many outputs as there are labels.
        skipped = (PROJECTION_NAME, *(f"{found}." for found in names[-1:]))
        if outputs is not None and num_labels in (None, outputs) and not name.startswith(skipped):
            names.append(name)
    return names
