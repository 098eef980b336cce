"""The training arguments of CLCE."""

from dataclasses import dataclass, field
from typing import cast

from transformers import TrainingArguments

from clce_hf.data.sampler import check_group_size
from clce_hf.loss.clce import check_hyperparameters
from clce_hf.loss.contrastive import Variant


@dataclass
class CLCEConfig(TrainingArguments):
    """`transformers.TrainingArguments` and the hyperparameters of CLCE (arXiv 2402.14551).

    The defaults are the paper's. Only the fields that `TrainingArguments` does not have are
    documented here.

    Args:
        contrastive_weight: lambda, the share of the contrastive term, in [0, 1].
        temperature: tau, divides the cosine similarities, > 0.
        beta: concentration of the hard-negative weights, >= 0; 0 weights all negatives alike.
        variant: "in" takes the mean over positives inside the logarithm (the paper), "out" outside.
        projection_dim: None contrasts the pooled embeddings (the paper); an int trains a two-layer
            head of that output size with the model and contrasts what it makes of them.
        samples_per_class: None leaves batches to Trainer's sampler; K makes each batch of a device
            of groups of K images of one class, so that anchors have positives.
        gather_across_devices: contrast over the batches of all processes; False contrasts each
            process's batch alone.
        cached_mini_batch_size: None, or how many images to forward at a time, while still
            contrasting the whole batch of a device, exactly (GradCache): memory grows with the
            mini-batch, and each image is forwarded twice.
        layer_decay: None, or the factor of the learning rate from each layer to the one below.
        embedding_module: dotted name of the classification layer, where it cannot be found.

    Raises:
        ValueError: for a field out of range, naming it.
    """

    contrastive_weight: float = field(
        default=0.9, metadata={"help": "Lambda: the share of the contrastive term, in [0, 1]."}
    )
    temperature: float = field(
        default=0.5, metadata={"help": "Tau: divides the cosine similarities; positive."}
    )
    beta: float = field(
        default=1.0,
        metadata={"help": "Concentration of the hard-negative weights; 0 weights all alike."},
    )
    variant: Variant = field(
        default="in",
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
    gather_across_devices: bool = field(
        default=True, metadata={"help": "Contrast over the batches of all processes."}
    )
    cached_mini_batch_size: int | None = field(
        default=None,
        metadata={"help": "Forward this many images at a time; contrast the whole batch."},
    )
    layer_decay: float | None = field(
        default=None,
        metadata={"help": "Factor of the learning rate from each layer to the one below."},
    )
    embedding_module: str | None = field(
        default=None,
        metadata={"help": "Dotted name of the classification layer, where it is not found."},
    )

    def __post_init__(self) -> None:
        check_hyperparameters(self.contrastive_weight, self.temperature, self.beta, self.variant)
        if self.projection_dim is not None and self.projection_dim < 1:
            raise ValueError(
                f"projection_dim must be at least 1, got {self.projection_dim}; None contrasts the "
                "pooled embeddings."
            )
        if self.cached_mini_batch_size is not None and self.cached_mini_batch_size < 1:
            raise ValueError(
                "cached_mini_batch_size must be at least 1, got "
                f"{self.cached_mini_batch_size}; None forwards a whole batch at once."
            )
        if self.layer_decay is not None and not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(
                f"layer_decay must lie in (0, 1], got {self.layer_decay}: the authors use 0.65, "
                "None trains all layers alike."
            )
        if self.samples_per_class is not None:
            check_group_size(self.samples_per_class, self.per_device_train_batch_size)
            if self.auto_find_batch_size:
                raise ValueError(
                    "samples_per_class needs a fixed batch size: leave out auto_find_batch_size, "
                    "which may settle on one that samples_per_class does not divide."
                )
            if self.train_sampling_strategy != "random":
                raise ValueError(
                    "samples_per_class makes the order of the images itself: leave "
                    f"train_sampling_strategy at 'random', got {self.train_sampling_strategy!r}."
                )
        super().__post_init__()
        if self.cached_mini_batch_size == 1 and self.torch_compile:
            # Seen in torch 2.14: parameters that are added, one of them expanded over the batch,
            # get gradients that share memory, and the next mini-batch is added to both.
            raise ValueError(
                "cached_mini_batch_size=1 does not fit torch_compile, whose gradients of a single "
                "image may share memory: set cached_mini_batch_size to 2 or more."
            )


def add_defaults(args: TrainingArguments) -> CLCEConfig:
    """Give plain training arguments the fields of `CLCEConfig`, at their defaults, in place.

    In place, so that what a script changes in its arguments afterwards still counts.
    """
    for name in CLCEConfig.__annotations__:
        if not hasattr(args, name):
            setattr(args, name, CLCEConfig.__dataclass_fields__[name].default)
    return cast(CLCEConfig, args)


def training_settings(args: CLCEConfig, batch_size: int) -> dict[str, str]:
    """Settings that decide what a run comes to, by name.

    Args:
        args: of the run.
        batch_size: images of a device, which `auto_find_batch_size` may have lowered.
    """
    num_processes = args.world_size
    together = batch_size * (num_processes if args.gather_across_devices else 1)
    weight = args.contrastive_weight
    loss = {
        "loss": f"(1 - {weight:g}) cross-entropy + {weight:g} contrastive",
        "temperature (tau)": f"{args.temperature:g}",
        "hard-negative concentration (beta)": f"{args.beta:g}",
        "variant": args.variant,
        "contrasted": "the pooled embedding"
        if args.projection_dim is None
        else f"a projection to {args.projection_dim} dimensions",
        "images contrasted together": str(together),
    }
    steps = args.gradient_accumulation_steps
    processes = "1 process" if num_processes == 1 else f"{num_processes} processes"
    parts = f"{batch_size} per device, {processes}, {steps} accumulated"
    is_capped = args.max_steps > 0
    length = f"{args.max_steps if is_capped else args.num_train_epochs:g}"
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return {
        **(loss if weight > 0 else {"loss": "cross-entropy"}),
        "sampler": str(args.train_sampling_strategy)
        if args.samples_per_class is None
        else f"{args.samples_per_class} images of a class together",
        "batch size": f"{batch_size * num_processes * steps} ({parts})",
        "steps" if is_capped else "epochs": length,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "learning rate": f"{args.learning_rate:g}",
        "schedule": f"{schedule}, warm-up {args.warmup_steps:g}",
        "weight decay": f"{args.weight_decay:g}",
        "layer decay": "none" if args.layer_decay is None else f"{args.layer_decay:g}",
        "label smoothing": f"{args.label_smoothing_factor:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "seed": str(args.seed),
    }
