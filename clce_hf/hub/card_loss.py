"""What a card says of the loss of `CLCETrainer`: no more than is known to be true of the run."""

from dataclasses import dataclass, replace
from typing import Any

from clce_hf.hub.methods import CLCE, CLCE_WITH_FUNCTION, CROSS_ENTROPY, OWN, CardMethod
from clce_hf.loss.logit_adjustment import LogitAdjustedLoss


@dataclass(frozen=True)
class CardLoss:
    """The loss that a model was trained with, as far as it is known.

    Attributes:
        args: of the run, with the fields of `CLCEConfig`.
        function: `compute_loss_func`, in the place of the cross-entropy; None without one.
        smoothing: of the labels by Trainer.
        is_of_subclass: whether a subclass has a `compute_loss` of its own.
        is_contrasted: whether the loss has a contrastive term; of a subclass, whether one was
            measured in training.
    """

    args: Any
    function: Any
    smoothing: float
    is_of_subclass: bool
    is_contrasted: bool

    @property
    def method(self) -> CardMethod:
        """How the card names the method, and what it says that an evaluation's `loss` is."""
        if self.is_contrasted:
            method = CLCE_WITH_FUNCTION if self._has_own_term else CLCE
        else:
            method = OWN if self._has_own_term or self.is_of_subclass else CROSS_ENTROPY
        return replace(method, loss=self._in_evaluation)

    def settings(self, batch_size: int, training: dict[str, str]) -> dict[str, str]:
        """Return the settings of the loss and of the training, by name.

        Args:
            batch_size: images per device, which `auto_find_batch_size` may have lowered.
            training: the settings that any training has.
        """
        args, function = self.args, self.function
        settings = {"loss": self._in_training, **self._contrastive(batch_size), **training}
        if isinstance(function, LogitAdjustedLoss):
            settings["logit adjustment (tau)"] = f"{function.tau:g}"
        if self._smooths is None:
            del settings["label smoothing"]
        else:
            settings["label smoothing"] = f"{self._smooths:g}"
        if args.samples_per_class is not None:
            settings["sampler"] = f"groups of {args.samples_per_class} images of a class"
        if args.head_init is not None:
            settings["head start"] = "class means of the embeddings"
        decay = args.layer_decay
        return {**settings, "layer decay": "none" if decay is None else f"{decay:g}"}

    def _contrastive(self, batch_size: int) -> dict[str, str]:
        args = self.args
        if not self.is_contrasted:
            return {}
        contrasted = batch_size * (args.world_size if args.gather_across_devices else 1)
        return {
            "temperature (tau)": f"{args.temperature:g}",
            "hard-negative concentration (beta)": f"{args.beta:g}",
            "variant": args.variant,
            "contrasted": "the pooled embedding"
            if args.projection_dim is None
            else f"a projection to {args.projection_dim} dimensions",
            "images contrasted together": str(contrasted),
            "memory of past embeddings": str(args.memory_size),
        }

    @property
    def _has_own_term(self) -> bool:
        """Whether a function that is not known takes the place of the cross-entropy."""
        return self.function is not None and not isinstance(self.function, LogitAdjustedLoss)

    @property
    def _smooths(self) -> float | None:
        """The label smoothing; None where it is not known."""
        if self._has_own_term or (self.is_of_subclass and not self.is_contrasted):
            return None
        return self.smoothing if self.function is None else self.function.label_smoothing

    @property
    def _in_training(self) -> str:
        term = "`compute_loss_func`" if self._has_own_term else "cross-entropy"
        weight = self.args.contrastive_weight
        if self.is_contrasted:
            term = f"(1 - {weight:g}) {term} + {weight:g} contrastive"
        if self.is_of_subclass:
            return "of a subclass of CLCETrainer" + (f", from {term}" if self.is_contrasted else "")
        return term

    @property
    def _in_evaluation(self) -> str:
        if self.is_of_subclass:
            return "what `compute_loss` of a subclass of `CLCETrainer` returned"
        if self._has_own_term:
            return "what `compute_loss_func` returned, without a contrastive term"
        smoothing = f", with a label smoothing of {self._smooths:g}" if self._smooths else ""
        return f"the cross-entropy alone{smoothing}"
