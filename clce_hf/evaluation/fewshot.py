"""Few-shot episodes on embeddings: n ways, k shots, all episodes as tensors.

Protocol: Vinyals et al., arXiv 1606.04080. An episode draws n classes, k support embeddings of each
to learn from and q queries of each to classify. The classifiers are the nearest centroid by cosine
(SimpleShot, Wang et al., arXiv 1911.04623, without centring), by Euclidean distance (prototypical
networks, Snell et al., arXiv 1703.05175) and logistic regression (Tian et al., arXiv 2003.11539).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from clce_hf.loss.contrastive import to_unit_length
from clce_hf.loss.pairs import IGNORE_INDEX

Classifier = Literal["cosine", "euclidean", "logistic"]

_CHUNK_ELEMENTS = 2**24
"""Numbers held at a time for a chunk of episodes: 64 MiB in float32."""

_LOGISTIC_STEPS = 500
_LOGISTIC_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Episodes:
    """Which rows of the embeddings take part.

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
        labels: integers, shape (m,). Rows labelled -100 are left out.
        n_way: classes in an episode, 2 at least.
        k_shot: support embeddings of each class.
        num_queries: embeddings to classify, of each class.
        num_episodes: how many.
        classifier: "cosine" or "euclidean" for the nearest centroid, or "logistic" regression on
            embeddings of length 1 with an L2 penalty, as scikit-learn has it at C = 1.
        seed: decides the episodes.

    Returns:
        The accuracy of each episode, their mean and its interval.

    Raises:
        ValueError: for a number out of range, or too few classes of k + q embeddings.
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
    drawn = k_shot + num_queries
    classes, class_sizes = labels[labels != IGNORE_INDEX].unique(return_counts=True)
    most = max(class_sizes.tolist(), default=0)
    classes, class_sizes = classes[class_sizes >= drawn], class_sizes[class_sizes >= drawn]
    if len(classes) < n_way:
        raise ValueError(
            f"{n_way}-way {k_shot}-shot episodes with {num_queries} queries need {n_way} classes "
            f"of {drawn} images, but {len(classes)} have that many, and the largest has {most}: "
            "lower n_way, k_shot or num_queries."
        )
    largest = int(class_sizes.max())
    rows_of = torch.zeros(len(classes), largest, dtype=torch.long)
    for i, label in enumerate(classes):
        rows_of[i, : class_sizes[i]] = (labels == label).nonzero()[:, 0]
    is_missing = torch.arange(largest) >= class_sizes[:, None]

    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for size in _chunks(num_episodes, max(len(classes), n_way * largest)):
        ways = torch.rand(size, len(classes), generator=generator).argsort(1)[:, :n_way]
        order = torch.rand(size, n_way, largest, generator=generator)
        order.masked_fill_(is_missing[ways], -1.0)
        chosen.append(rows_of[ways].gather(2, order.topk(drawn, dim=2).indices))
    rows = torch.cat(chosen)
    return Episodes(rows[..., :k_shot], rows[..., k_shot:])


def accuracy_of_episodes(
    embeddings: Tensor, episodes: Episodes, classifier: Classifier = "cosine"
) -> Tensor:
    """Accuracy of each episode.

    Args:
        embeddings: floating point, shape (m, d).
        episodes: whose rows are those of the embeddings.
        classifier: see `few_shot_accuracy`.

    Returns:
        float64, shape (episodes,).
    """
    embeddings = embeddings.float()
    points = embeddings if classifier == "euclidean" else to_unit_length(embeddings)
    score: Callable[[Tensor, Tensor], Tensor] = {
        "cosine": _cosine_to_centroids,
        "euclidean": _distance_to_centroids,
        "logistic": _logistic_regression,
    }[classifier]
    num_episodes, n_way, _ = episodes.query.shape
    per_episode = (episodes.support[0].numel() + episodes.query[0].numel()) * points.shape[1]
    truth = torch.arange(n_way, device=points.device)[:, None]
    accuracies, start = [], 0
    for size in _chunks(num_episodes, per_episode):
        part = slice(start, start + size)
        support = points[episodes.support[part].to(points.device)]
        query = points[episodes.query[part].to(points.device)]
        predicted = score(support, query.flatten(1, 2)).argmax(2).view(size, n_way, -1)
        accuracies.append((predicted == truth).double().mean((1, 2)))
        start += size
    return torch.cat(accuracies)


def _chunks(total: int, elements_each: int) -> Iterator[int]:
    """Sizes of chunks that hold about `_CHUNK_ELEMENTS` each."""
    size = max(1, _CHUNK_ELEMENTS // elements_each)
    for start in range(0, total, size):
        yield min(size, total - start)


# Scores of queries (episodes, n * q, d) for each class, given support (episodes, n, k, d).


def _cosine_to_centroids(support: Tensor, query: Tensor) -> Tensor:
    return query @ F.normalize(support.mean(2), dim=2).transpose(1, 2)


def _distance_to_centroids(support: Tensor, query: Tensor) -> Tensor:
    centroids = support.mean(2)
    # |q - c|^2 less |q|^2, which is the same for every class.
    return 2 * query @ centroids.transpose(1, 2) - centroids.square().sum(2)[:, None]


def _logistic_regression(support: Tensor, query: Tensor) -> Tensor:
    """Scores of multinomial logistic regression: sum of losses + half the squared weights.

    The weights are combinations of the n k support points, so these are written in an orthonormal
    basis of their own first: at most n k numbers each instead of d.
    """
    num_episodes, n_way, k_shot, _ = support.shape
    points = support.flatten(1, 2)
    basis, triangle = torch.linalg.qr(points.transpose(1, 2))
    inputs = triangle.transpose(1, 2)
    truth = torch.arange(n_way, device=points.device).repeat_interleave(k_shot)
    truth = F.one_hot(truth, n_way).to(points.dtype)

    # Nesterov's method with restarts. The Hessian of the softmax is at most 1/2; the points have
    # length 1, and the biases, which are not penalised, see the number of points.
    largest = torch.linalg.matrix_norm(inputs @ inputs.transpose(1, 2), ord=2) + n_way * k_shot
    step = (1.0 / (1.0 + 0.5 * largest))[:, None, None]
    weights = points.new_zeros(num_episodes, inputs.shape[2], n_way)
    biases = points.new_zeros(num_episodes, 1, n_way)
    ahead, ahead_biases, momentum = weights, biases, points.new_ones(num_episodes, 1, 1)
    for _ in range(_LOGISTIC_STEPS):
        errors = torch.softmax(inputs @ ahead + ahead_biases, dim=2) - truth
        slope = inputs.transpose(1, 2) @ errors + ahead
        bias_slope = errors.sum(1, keepdim=True)
        if max(slope.abs().max(), bias_slope.abs().max()) < _LOGISTIC_TOLERANCE:
            break
        new_weights, new_biases = ahead - step * slope, ahead_biases - step * bias_slope
        moved, moved_biases = new_weights - weights, new_biases - biases
        uphill = (slope * moved).sum((1, 2)) + (bias_slope * moved_biases).sum((1, 2)) > 0
        momentum = momentum.masked_fill(uphill[:, None, None], 1.0)
        next_momentum = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        push = (momentum - 1) / next_momentum
        ahead, ahead_biases = new_weights + push * moved, new_biases + push * moved_biases
        weights, biases, momentum = new_weights, new_biases, next_momentum
    return (query @ basis) @ weights + biases
