"""Few-shot episodes on embeddings: n ways, k shots, all episodes as tensors.

Protocol: Vinyals et al., arXiv 1606.04080. An episode draws n classes, k support embeddings of each
to learn from and q queries of each to classify. The classifiers are the nearest centroid by cosine
(SimpleShot, Wang et al., arXiv 1911.04623, without centering) and logistic regression (Tian et al.,
arXiv 2003.11539).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from clce_hf.evaluation.logistic_regression import logistic_scores
from clce_hf.evaluation.points import check_embeddings
from clce_hf.loss.targets import IGNORE_INDEX
from clce_hf.loss.unit_length import to_unit_length

Classifier = Literal["cosine", "logistic"]

MAX_ELEMENTS = 2**24
"""Numbers held at a time for a chunk of episodes by default: 64 MiB in float32."""


@dataclass(frozen=True)
class Episodes:
    """The rows of the embeddings that take part in each episode.

    Attributes:
        support: int64, shape (episodes, n, k).
        query: int64, shape (episodes, n, q).
    """

    support: Tensor
    query: Tensor


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy over episodes.

    Attributes:
        accuracies: of each episode, float64, shape (episodes,).
    """

    accuracies: Tensor

    @property
    def mean(self) -> float:
        """Mean accuracy, in [0, 1]."""
        return self.accuracies.mean().item()

    @property
    def interval(self) -> float:
        """Half the width of the 95 % confidence interval of the mean; NaN for one episode."""
        return 1.96 * self.accuracies.std().item() / math.sqrt(len(self.accuracies))


def few_shot_accuracy(
    embeddings: Tensor,
    labels: Tensor,
    *,
    n_way: int = 5,
    k_shot: int = 5,
    num_queries: int = 15,
    num_episodes: int = 1000,
    classifier: Classifier = "cosine",
    seed: int = 0,
) -> FewShotResult:
    """Accuracy of a classifier that sees k embeddings of each of n classes, over many episodes.

    Args:
        embeddings: floating point, shape (m, d).
        labels: integers, shape (m,). Rows labeled -100 are left out.
        n_way: classes in an episode, at least 2.
        k_shot: support embeddings of each class.
        num_queries: embeddings to classify, of each class.
        num_episodes: number of episodes.
        classifier: "cosine" for the nearest centroid, or "logistic" regression on embeddings of
            length 1 with an L2 penalty, as scikit-learn has it at C = 1.
        seed: decides the episodes.

    Returns:
        The accuracy of each episode, their mean and its interval.

    Raises:
        ValueError: for a number out of range, too few classes of k + q embeddings, or embeddings
            that are not finite.
    """
    if classifier not in get_args(Classifier):
        raise ValueError(
            f"classifier must be one of {', '.join(get_args(Classifier))}, got {classifier!r}."
        )
    episodes = sample_episodes(
        labels,
        n_way=n_way,
        k_shot=k_shot,
        num_queries=num_queries,
        num_episodes=num_episodes,
        seed=seed,
    )
    check_embeddings(embeddings[labels != IGNORE_INDEX], least=2)
    return FewShotResult(accuracy_of_episodes(embeddings, episodes, classifier))


def sample_episodes(
    labels: Tensor, *, n_way: int, k_shot: int, num_queries: int, num_episodes: int, seed: int
) -> Episodes:
    """Draw episodes: n classes without replacement, then k + q rows of each without replacement.

    Args and errors are those of `few_shot_accuracy`. The same on every machine for a seed.
    """
    sizes = {"n_way": n_way, "k_shot": k_shot, "num_queries": num_queries}
    for name, value in {**sizes, "num_episodes": num_episodes}.items():
        least = 2 if name == "n_way" else 1
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    labels = labels.cpu()
    per_class = k_shot + num_queries
    classes, class_sizes = labels[labels != IGNORE_INDEX].unique(return_counts=True)
    largest = max(class_sizes.tolist(), default=0)
    classes, class_sizes = classes[class_sizes >= per_class], class_sizes[class_sizes >= per_class]
    if len(classes) < n_way:
        raise ValueError(
            f"{n_way}-way {k_shot}-shot episodes with {num_queries} queries need {n_way} classes "
            f"of {per_class} images, but {len(classes)} have that many, and the largest has "
            f"{largest}: lower n_way, k_shot or num_queries."
        )
    rows_of = torch.zeros(len(classes), largest, dtype=torch.long)
    for i, label in enumerate(classes):
        rows_of[i, : class_sizes[i]] = (labels == label).nonzero()[:, 0]
    is_missing = torch.arange(largest) >= class_sizes[:, None]

    generator = torch.Generator().manual_seed(seed)
    parts = []
    for size in _chunks(num_episodes, max(len(classes), n_way * largest), MAX_ELEMENTS):
        ways = torch.rand(size, len(classes), generator=generator).argsort(1)[:, :n_way]
        order = torch.rand(size, n_way, largest, generator=generator)
        order.masked_fill_(is_missing[ways], -1.0)
        parts.append(rows_of[ways].gather(2, order.topk(per_class, dim=2).indices))
    rows = torch.cat(parts)
    return Episodes(rows[..., :k_shot], rows[..., k_shot:])


def accuracy_of_episodes(
    embeddings: Tensor,
    episodes: Episodes,
    classifier: Classifier = "cosine",
    *,
    max_elements: int = MAX_ELEMENTS,
) -> Tensor:
    """Accuracy of each episode.

    Args:
        embeddings: floating point, shape (m, d).
        episodes: whose rows are those of the embeddings.
        classifier: see `few_shot_accuracy`.
        max_elements: numbers to hold at a time for a chunk of episodes.

    Returns:
        float64, shape (episodes,).
    """
    points = to_unit_length(embeddings.float())
    score = _cosine_to_centroids if classifier == "cosine" else logistic_scores
    num_episodes, n_way, _ = episodes.query.shape
    per_episode = (episodes.support[0].numel() + episodes.query[0].numel()) * points.shape[1]
    truth = torch.arange(n_way, device=points.device)[:, None]
    accuracies, start = [], 0
    for size in _chunks(num_episodes, per_episode, max_elements):
        chunk = slice(start, start + size)
        support = points[episodes.support[chunk].to(points.device)]
        query = points[episodes.query[chunk].to(points.device)]
        predicted = score(support, query.flatten(1, 2)).argmax(2).view(size, n_way, -1)
        accuracies.append((predicted == truth).double().mean((1, 2)))
        start += size
    return torch.cat(accuracies)


def _chunks(total: int, elements_each: int, max_elements: int) -> Iterator[int]:
    """Sizes of chunks that hold about `max_elements` numbers each."""
    size = max(1, max_elements // elements_each)
    for start in range(0, total, size):
        yield min(size, total - start)


def _cosine_to_centroids(support: Tensor, query: Tensor) -> Tensor:
    """Scores like those of `logistic_scores`."""
    return query @ F.normalize(support.mean(2), dim=2).transpose(1, 2)
