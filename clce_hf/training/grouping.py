"""Batches made of groups of images of one class, and a look at the first ones whether they are."""

from typing import Any, cast

from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_utils import has_length

from clce_hf.data.labels import Labels, how_to_name_them, required_labels
from clce_hf.data.sampler import GroupByLabelSampler, SamplerEpoch, check_group_size
from clce_hf.loss.targets import IGNORE_INDEX
from clce_hf.training.class_sizes import images_per_class
from clce_hf.training.labels import labels_of

_BATCHES = 20
"""How many batches are looked at: enough for labels that differ in a few images of a hundred."""


class GroupCheck:
    """Looks at the labels that training really sees, in its first batches.

    Args:
        group_size: images of one class in a row.
        num_rows: images in a batch; a shorter one may be cut through a group.
        source: of the labels that the groups were made by.
        advice: where the labels are others, for the end of the error.
    """

    def __init__(self, group_size: int, num_rows: int, source: str, advice: str) -> None:
        self._group_size, self._num_rows = group_size, num_rows
        self._source, self._advice = source, advice
        self._batches_left = _BATCHES

    def __call__(self, labels: Any) -> None:
        """Raise `ValueError` if the labels of a batch cannot be those of whole groups.

        In any order, and mixed in any way that keeps how much there is of each class: it must be a
        multiple of the size of a group, up to images whose label was set to -100.
        """
        if self._batches_left == 0 or not isinstance(labels, Tensor):
            return
        if len(labels) < self._num_rows or len(labels) % self._group_size:
            return
        self._batches_left -= 1
        counts = images_per_class(labels)
        if counts is None:
            return
        num_ignored = len(labels) - int(counts.sum())
        if int((-counts % self._group_size).sum()) > num_ignored:
            found = ", ".join(str(count) for count in counts[counts > 0].tolist()[:10])
            raise ValueError(
                f"samples_per_class={self._group_size} grouped the images by {self._source} of the "
                f"training data, but training sees other labels: in a batch of {len(labels)}, its "
                f"classes have {found} images, which are not groups of {self._group_size}. "
                f"To name the labels that are trained, {self._advice}"
            )


class GroupingTrainer(Trainer):
    """Trainer that groups batches as `samples_per_class` says. The constructor is its own."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._start_grouping()

    def _hp_search_setup(self, trial: Any) -> None:
        # Called by every train(), once model_init's model and a trial's arguments are there.
        super()._hp_search_setup(trial)
        self._start_grouping()

    def _start_grouping(self) -> None:
        """Check what can be checked of the labels before training."""
        self._group_check: GroupCheck | None = None
        if self._group_size is not None and self.train_dataset is not None:
            training_labels(self, self.train_dataset)

    @property
    def _group_size(self) -> int | None:
        return cast(Any, self.args).samples_per_class

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        if self._group_size is None:
            return super()._get_train_sampler(train_dataset)
        batch_size = self._train_batch_size
        if self.accelerator.split_batches:
            batch_size //= self.accelerator.num_processes
            check_group_size(self._group_size, batch_size)
        # Trainer has taken the columns away that the model does not know.
        whole: Any = self.train_dataset
        is_same = train_dataset is None or (has_length(whole) and len(whole) == len(train_dataset))
        dataset = whole if is_same else train_dataset
        labels = training_labels(self, dataset)
        self.pop_callback(SamplerEpoch)  # of an earlier run
        self.add_callback(SamplerEpoch)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = GroupByLabelSampler(labels.ids, self._group_size, batch_size, seed=seed)
        num_rows = min(batch_size, len(sampler))
        advice = how_to_name_them(dataset)
        self._group_check = GroupCheck(self._group_size, num_rows, labels.source, advice)
        return sampler

    def get_batch_samples(self, *args: Any, **named: Any) -> Any:
        """Take the batches of an optimizer step, and check that the first ones are grouped.

        Raises:
            ValueError: if they are not.
        """
        batches, num_items = super().get_batch_samples(*args, **named)
        if self._group_size is None:
            return batches, num_items
        if self._group_check is None:
            raise ValueError(
                "samples_per_class groups the batches of Trainer's own data loader, but "
                "get_train_dataloader made another: leave samples_per_class out. In a data loader "
                "of your own, clce_hf.GroupByLabelSampler groups the images."
            )
        for batch in batches:
            self._group_check(labels_of(batch, self.label_names))
        return batches, num_items


def training_labels(trainer: Trainer, dataset: Any) -> Labels:
    """Return the labels to group a data set by.

    Raises:
        ValueError: if they cannot be read, or are of fewer than two classes or of more than the
            model has.
    """
    labels = required_labels(dataset, trainer.label_names, "samples_per_class")
    num_classes = len(labels.ids[labels.ids != IGNORE_INDEX].unique())
    num_labels = getattr(getattr(trainer.model, "config", None), "num_labels", num_classes)
    if 2 <= num_classes <= num_labels:
        return labels
    found = (
        "fewer than two classes, so there is nothing to contrast"
        if num_classes < 2
        else f"{num_classes} classes, but the model has num_labels={num_labels}: load it with "
        f"from_pretrained(..., num_labels={num_classes})"
    )
    raise ValueError(
        f"samples_per_class groups the images by {labels.source} of the training data, which holds "
        f"{found}. If other labels are trained, {how_to_name_them(dataset)}"
    )
