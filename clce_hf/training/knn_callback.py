"""`KNNCallback`: asks `CLCETrainer` for k-NN accuracy at every evaluation."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class KNNCallback(TrainerCallback):
    """Has `CLCETrainer` log `eval_knn_accuracy`, which `metric_for_best_model` can name.

    That is the share of evaluation images whose class has the majority among the k training images
    nearest by the cosine of the pooled embeddings; ties go to the smaller class id. Evaluation
    images are embedded in the forward pass that evaluates them, and those of the training anew in
    each evaluation, so its cost is their forward pass. Nothing else in training changes, not a
    random number.

    Args:
        k: how many vote, at least 1. No more than the voters that each of over half of the classes
            has, so that images of other classes need not outvote a class; fewer than asked are
            logged as a warning. A class that is smaller still can be outvoted.
        max_train_samples: training images that vote, drawn once by the seed of the run, as many of
            each class as there are, and one of each at least. They are read as evaluation images
            are where both are `datasets.Dataset` of the same columns with a `set_transform`, and
            else as training reads them.
        train_dataset: labeled images to draw the voters from; None for those of the trainer. A
            stream cannot be drawn from.

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(
        self, k: int = 20, max_train_samples: int = 2000, train_dataset: Any = None
    ) -> None:
        for name, value in (("k", k), ("max_train_samples", max_train_samples)):
            if value < 1:
                raise ValueError(f"KNNCallback: {name} must be at least 1, got {value}.")
        self.k = k
        self.max_train_samples = max_train_samples
        self.train_dataset = train_dataset
        self.is_heard = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise `ValueError` under a trainer that does not ask for it, and would log nothing."""
        if not self.is_heard:
            raise ValueError(
                "KNNCallback works with CLCETrainer alone, which also trains with cross-entropy "
                "(contrastive_weight=0): take it, or leave the callback out."
            )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise as `on_train_begin` does, where nothing is trained."""
        self.on_train_begin(args, state, control)
