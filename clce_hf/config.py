"""The training arguments of CLCE."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from clce_hf.data.sampler import check_group_size
from clce_hf.loss.hyperparameters import Hyperparameters, Variant, check_hyperparameters
from clce_hf.setting_types import check_types


@dataclass
class CLCEConfig(TrainingArguments):
    """`transformers.TrainingArguments` and the hyperparameters of CLCE (arXiv 2402.14551).

    The defaults gained over cross-entropy on every data set of our study, in small batches, too
    (docs/results.md); the paper's values are in examples/recipes/paper.yaml. Only the fields that
    `TrainingArguments` does not have are documented here.

    Args:
        contrastive_weight: lambda, the share of the contrastive term, in [0, 1].
        temperature: tau, divides the cosine similarities, > 0.
        beta: concentration of the hard-negative weights, >= 0; 0 weights all negatives alike.
        variant: "in" takes the mean over positives inside the logarithm (the paper), "out" outside.
        projection_dim: None contrasts the pooled embeddings (the paper); an int trains a two-layer
            head of that output size with the model and contrasts the projected embeddings.
        samples_per_class: None leaves batches to Trainer's sampler; K fills the batch of a device
            with groups of K images of one class, so that anchors have positives.
        memory_size: how many of the most recent embeddings anchors are contrasted with beside the
            batch, without gradient (cross-batch memory, arXiv 1912.06798); 0 for none.
        gather_across_devices: contrast over the batches of all processes; False contrasts each
            process's batch alone.
        cached_mini_batch_size: None, or how many images to forward at a time, while still
            contrasting the whole batch of a device, exactly (GradCache): memory grows with the
            mini-batch, and each image is forwarded twice.
        head_init: None starts from the classification layer as it is; "class_means" sets it, at the
            start of each run that does not resume, to the class means of the training embeddings.
        layer_decay: None, or the factor of the learning rate from each layer to the one below.
        classification_layer: dotted name of the classification layer, where it cannot be found.

    Raises:
        ValueError: for a field out of range or of another type, naming it.
    """

    contrastive_weight: float = field(
        default=0.9, metadata={"help": "Lambda: the share of the contrastive term, in [0, 1]."}
    )
    temperature: float = field(
        default=0.3, metadata={"help": "Tau: divides the cosine similarities; positive."}
    )
    beta: float = field(
        default=0.25,
        metadata={"help": "Concentration of the hard-negative weights; 0 weights all alike."},
    )
    variant: Variant = field(
        default="out",
        metadata={"help": "Mean over positives inside the logarithm (the paper) or outside."},
    )
    projection_dim: int | None = field(
        default=None,
        metadata={"help": "Output size of a projection head; by default there is none."},
    )
    samples_per_class: int | None = field(
        default=None,
        metadata={"help": "Make each batch of groups of this many images of one class."},
    )
    memory_size: int = field(
        default=1024,
        metadata={"help": "Contrast with this many embeddings of past batches, too; 0: none."},
    )
    gather_across_devices: bool = field(
        default=True, metadata={"help": "Contrast over the batches of all processes."}
    )
    cached_mini_batch_size: int | None = field(
        default=None,
        metadata={"help": "Forward this many images at a time; contrast the whole batch."},
    )
    head_init: Literal["class_means"] | None = field(
        default=None,
        metadata={"help": "Start the classification layer from class means of the embeddings."},
    )
    layer_decay: float | None = field(
        default=None,
        metadata={"help": "Factor of the learning rate from each layer to the one below."},
    )
    classification_layer: str | None = field(
        default=None,
        metadata={"help": "Dotted name of the classification layer, where it is not found."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self)


def hyperparameters(args: CLCEConfig) -> Hyperparameters:
    """Return the hyperparameters of the loss."""
    return Hyperparameters(args.contrastive_weight, args.temperature, args.beta, args.variant)


def check_settings(args: CLCEConfig) -> None:
    """Raise `ValueError` for a field out of range or fields that do not fit, naming them."""
    check_types(args, CLCEConfig)
    check_hyperparameters(*hyperparameters(args))
    if args.projection_dim is not None and args.projection_dim < 1:
        raise ValueError(
            f"projection_dim must be at least 1, got {args.projection_dim}; None contrasts the "
            "pooled embeddings."
        )
    if args.layer_decay is not None and not 0.0 < args.layer_decay <= 1.0:
        raise ValueError(
            f"layer_decay must lie in (0, 1], got {args.layer_decay}: the authors use 0.65, "
            "None trains all layers alike."
        )
    if args.memory_size < 0:
        raise ValueError(
            f"memory_size must not be negative, got {args.memory_size}: 0 contrasts with the batch "
            "alone."
        )
    if args.head_init not in (None, "class_means"):
        raise ValueError(
            f'head_init must be "class_means", or None for the layer as it is, got '
            f"{args.head_init!r}."
        )
    if args.classification_layer == "":
        raise ValueError(
            'classification_layer must be the dotted name of a layer, got ""; None finds it.'
        )
    _check_mini_batches(args)
    if args.samples_per_class is not None:
        _check_groups(args, args.samples_per_class)


def _check_mini_batches(args: CLCEConfig) -> None:
    if args.cached_mini_batch_size is not None and args.cached_mini_batch_size < 1:
        raise ValueError(
            "cached_mini_batch_size must be at least 1, got "
            f"{args.cached_mini_batch_size}; None forwards a whole batch at once."
        )
    if args.cached_mini_batch_size == 1 and args.torch_compile:
        # Seen in torch 2.14: parameters that are added, one of them expanded over the batch,
        # get gradients that share memory, and the next mini-batch is added to both.
        raise ValueError(
            "cached_mini_batch_size=1 does not fit torch_compile, whose gradients of a single "
            "image may share memory: set cached_mini_batch_size to 2 or more."
        )


def _check_groups(args: CLCEConfig, samples_per_class: int) -> None:
    check_group_size(samples_per_class, args.per_device_train_batch_size)
    if args.auto_find_batch_size:
        raise ValueError(
            "samples_per_class needs a fixed batch size: leave out auto_find_batch_size, "
            "which may settle on one that samples_per_class does not divide."
        )
    if args.train_sampling_strategy != "random":
        raise ValueError(
            "samples_per_class makes the order of the images itself: leave "
            f"train_sampling_strategy at 'random', got {args.train_sampling_strategy!r}."
        )
