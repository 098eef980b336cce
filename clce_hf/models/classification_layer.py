"""Find a classifier's last layer."""

from torch import nn

PROJECTION_NAME = "clce_projection_head"
"""Name of a projection head as a submodule of the model that it is trained with."""

HOW_TO_NAME_IT = "Name it with classification_layer, for example classification_layer='classifier'."


def find_classification_layer(
    model: nn.Module, classification_layer: str | None = None
) -> tuple[str, nn.Module]:
    """Return the layer whose input is the pooled embedding, and its dotted name.

    That is the last linear layer or 1 x 1 convolution, in the order of registration, that has
    `config.num_labels` outputs; a layer that PEFT wraps counts as one. `EmbeddingCapture` checks on
    the first batch that the output of one that it found really is the logits.

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
            f"outputs as the model has labels ({_num_labels(model)}). {HOW_TO_NAME_IT}"
        )
    return candidates[-1], modules[candidates[-1]]


def candidate_layers(model: nn.Module) -> list[str]:
    """Return the names of the outermost layers with as many outputs as the model has labels."""
    num_labels = _num_labels(model)
    names: list[str] = []
    for name, module in model.named_modules():
        outputs = _num_outputs(module)
        # A projection head of an earlier trainer may have as many outputs as there are labels.
        skipped = (PROJECTION_NAME, *(f"{outer}." for outer in names[-1:]))
        if outputs is not None and num_labels in (None, outputs) and not name.startswith(skipped):
            names.append(name)
    return names


def num_classes_of(
    model: nn.Module, classification_layer: str | None = None
) -> tuple[int | None, bool]:
    """Return how many classes a model knows, as far as it says, and whether that is sure.

    A model without a config says it by its classification layer alone, which may be another.
    """
    if (num_labels := _num_labels(model)) is not None:
        return num_labels, True
    names = [classification_layer] if classification_layer else candidate_layers(model)
    return _num_outputs(model.get_submodule(names[-1])) if names else None, False


def _num_labels(model: nn.Module) -> int | None:
    return getattr(getattr(model, "config", None), "num_labels", None)


def _num_outputs(module: nn.Module) -> int | None:
    """Return the outputs of a linear layer or 1 x 1 convolution; None of anything else."""
    outputs = getattr(module, "out_features", None)
    if outputs is None and getattr(module, "kernel_size", None) == (1, 1):
        outputs = getattr(module, "out_channels", None)
    return outputs
