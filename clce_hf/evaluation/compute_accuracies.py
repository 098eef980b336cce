"""Accuracies as `compute_metrics` of Transformers' Trainer."""

from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from clce_hf.evaluation.suite import accuracies
from clce_hf.loss.targets import is_labeled


def compute_accuracies(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy, balanced accuracy, macro F1 and, of more than five classes, top-5 accuracy.

    Args:
        prediction: logits, shape (n, classes), and labels, shape (n,). Images labeled -100
            are left out. Of a model that returns more, such as hidden states, Trainer makes a tuple
            that begins with the logits.

    Raises:
        ValueError: if all images are labeled -100, or several arrays may be the logits.
    """
    logits = torch.from_numpy(np.asarray(_logits(prediction.predictions)))
    labels = torch.from_numpy(np.asarray(prediction.label_ids)).long()
    is_used = is_labeled(labels)
    if not is_used.any():
        raise ValueError("There are no accuracies: no image of eval_dataset has a label but -100.")
    return accuracies(logits[is_used], labels[is_used])


def _logits(returned: Any) -> Any:
    if not isinstance(returned, tuple):
        return returned
    sizes = {array.shape[1] for array in returned if getattr(array, "ndim", 0) == 2}
    if len(sizes) > 1:
        raise ValueError(
            f"The model returns arrays of {sorted(sizes)} columns, and which are the logits cannot "
            "be told: give the trainer a preprocess_logits_for_metrics that returns them alone."
        )
    return returned[0]
