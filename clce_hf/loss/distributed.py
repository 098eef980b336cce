"""The contrastive loss over the batches of all processes, each contrasting its own anchors."""

import torch.distributed as dist
from torch import Tensor

from clce_hf.loss.contrastive import Variant, contrastive_sum, to_unit_length
from clce_hf.loss.gather import gather_rows
from clce_hf.loss.pairs import count_anchors, count_positives


def global_contrastive_loss(
    embeddings: Tensor, labels: Tensor, *, temperature: float, beta: float, variant: Variant
) -> tuple[Tensor, Tensor]:
    """This process's part of `label_aware_contrastive_loss` over the batches of all processes.

    Anchors are the images of this process, keys those of all. The sum over the anchors is divided
    by the number of valid anchors of all processes and multiplied by the number of processes: the
    mean over the processes, which distributed training makes of gradients, is then the loss of one
    process with the whole batch.

    Args:
        embeddings: of this process, floating point, shape (n, d); n may differ and may be 0.
        labels: integers, shape (n,), or what `class_probabilities` returns, shape (n, classes); of
            one kind in all processes.
        temperature: see `label_aware_contrastive_loss`.
        beta: see there.
        variant: see there.

    Returns:
        The part, a scalar, and the number of positives of this process's images, shape (n,).
    """
    (keys, all_labels), first = gather_rows(to_unit_length(embeddings), labels)
    num_positives = count_positives(all_labels)
    anchors = range(first, first + len(labels))
    total = contrastive_sum(keys, all_labels, anchors, temperature, beta, variant)
    num_processes = dist.get_world_size() if dist.is_initialized() else 1
    loss = total * num_processes / count_anchors(num_positives).clamp_min(1)
    return loss, num_positives[anchors.start : anchors.stop]
