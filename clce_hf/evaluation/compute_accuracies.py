"""Accuracies as `compute_metrics` of Transformers' Trainer."""

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
        ValueError: if all images are labeled -100.
    """
    returned = prediction.predictions
    logits = torch.from_numpy(np.asarray(returned[0] if isinstance(returned, tuple) else returned))
    labels = torch.from_numpy(np.asarray(prediction.label_ids)).long()
    is_used = is_labeled(labels)
    if not is_used.any():
        raise ValueError("There are no accuracies: no image of eval_dataset has a label but -100.")
    return accuracies(logits[is_used], labels[is_used])
