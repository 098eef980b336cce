"""How good embeddings are, as pure functions of tensors.

Embeddings are floating point of shape (n, d), labels integers of shape (n,); rows labeled -100 are
left out. Nothing of size n x n is held: all walk blocks of rows, of `block_elements` numbers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clce_hf.evaluation.points import BLOCK_ELEMENTS, blocks, check_embeddings, labeled_points
from clce_hf.loss.unit_length import to_unit_length
from clce_hf.models.neighbors import majority_of_nearest


def iso_score(embeddings: Tensor) -> float:
    """How evenly the embeddings use their dimensions: 1 for all alike, 0 for a line.

    IsoScore of Rudman et al., arXiv 2108.07344: from the covariance's eigenvalues alone.

    Raises:
        ValueError: for fewer than two embeddings or dimensions, or embeddings that are all equal.
    """
    check_embeddings(embeddings, least=2)
    dim = embeddings.shape[1]
    if dim < 2:
        raise ValueError("iso_score needs at least two dimensions.")
    # In double precision: the variance along most directions may be a tiny share of the largest.
    centered = embeddings.double()
    centered -= centered.mean(0)
    variances = torch.linalg.eigvalsh(centered.T @ centered).clamp_min(0)
    if variances.norm() == 0:
        raise ValueError("iso_score: all embeddings are equal.")
    defect = (math.sqrt(dim) * variances / variances.norm() - 1).norm().item()
    # 2 (d - sqrt d) normalizes the squared defect, and cancels against the next line's factor.
    share = (dim - defect**2 / 2) ** 2 / dim**2
    return (dim * share - 1) / (dim - 1)


def alignment(embeddings: Tensor, labels: Tensor, *, block_elements: int = BLOCK_ELEMENTS) -> float:
    """Mean squared distance of unit-length embeddings of the same class; 0 is the best.

    Wang and Isola, arXiv 2005.10242, alpha = 2; a positive pair is here two images of a class.

    Raises:
        ValueError: if no class has two embeddings, or there is only one class.
    """
    similarities = class_similarities(embeddings, labels, block_elements=block_elements)
    return 2.0 - 2.0 * similarities["within"]


def uniformity(embeddings: Tensor, *, block_elements: int = BLOCK_ELEMENTS) -> float:
    """Log of the mean Gaussian potential of all pairs of unit-length embeddings; lower is better.

    Wang and Isola, arXiv 2005.10242, t = 2: between -4 and 0.

    Raises:
        ValueError: for fewer than two embeddings.
    """
    check_embeddings(embeddings, least=2)
    points = to_unit_length(embeddings)
    total = 0.0
    for rows in blocks(points, len(points), block_elements):
        potentials = (points[rows] @ points.T).mul_(4.0).sub_(4.0).exp_()  # exp(-2 |x - y|^2)
        potentials.diagonal(rows.start).zero_()
        total += potentials.sum(dtype=torch.float64).item()
    return math.log(total / (len(points) * (len(points) - 1)))


def class_similarities(
    embeddings: Tensor, labels: Tensor, *, block_elements: int = BLOCK_ELEMENTS
) -> dict[str, float]:
    """Mean cosine similarity of the pairs `within` a class and `between` classes.

    Raises:
        ValueError: if no class has two embeddings, or there is one class.
    """
    points, classes = labeled_points(embeddings, labels)
    sums, sizes = _sums(points, classes, block_elements)
    squared = points.norm(dim=1).double().square()  # 0 for a zero vector, else 1
    within_class = sums.square().sum(1) - torch.zeros_like(sums[:, 0]).index_add_(
        0, classes, squared
    )
    all_pairs = sums.sum(0).square().sum() - squared.sum()
    pairs_within = (sizes * (sizes - 1)).sum()
    pairs_between = len(points) * (len(points) - 1) - pairs_within
    if pairs_within == 0 or pairs_between == 0:
        raise ValueError("Similarities of classes need two classes, one of them with two images.")
    return {
        "within": (within_class.sum() / pairs_within).item(),
        "between": ((all_pairs - within_class.sum()) / pairs_between).item(),
    }


def silhouette(
    embeddings: Tensor, labels: Tensor, *, block_elements: int = BLOCK_ELEMENTS
) -> float:
    """Mean silhouette by cosine distance, in [-1, 1]: how far apart the classes are.

    Rousseeuw 1987, as scikit-learn's `silhouette_score(metric="cosine")`, but from the sums of the
    classes: the distance of a point to a class is linear in the class's members.

    Raises:
        ValueError: unless there are two classes, and fewer classes than embeddings.
    """
    points, classes = labeled_points(embeddings, labels)
    sums, sizes = _sums(points, classes, block_elements)
    if not 2 <= len(sizes) < len(points):
        raise ValueError("silhouette needs at least two classes, and one with two images.")
    total = 0.0
    for rows in blocks(points, len(sizes), block_elements):
        block, block_classes = points[rows].double(), classes[rows]
        own = F.one_hot(block_classes, len(sizes)).bool()
        # A point is at distance 0 from itself, and is not one of its class's others.
        others = sizes - own.to(sizes.dtype)
        similarity = block @ sums.T - own * block.square().sum(1, keepdim=True)
        distance = 1.0 - similarity / others.clamp_min(1)
        within = distance[own]
        between = distance.masked_fill_(own, math.inf).amin(1)
        scores = (between - within) / torch.maximum(between, within).clamp_min(1e-300)
        total += scores.masked_fill(sizes[block_classes] == 1, 0.0).sum().item()
    return total / len(points)


def knn_accuracy(
    embeddings: Tensor, labels: Tensor, k: int = 20, *, block_elements: int = BLOCK_ELEMENTS
) -> float:
    """Share of embeddings that the majority of their k nearest others, by cosine, classify right.

    Ties go to the smaller label, as in scikit-learn's `KNeighborsClassifier`.

    Raises:
        ValueError: unless there are more than k embeddings.
    """
    points, classes = labeled_points(embeddings, labels)
    if not 1 <= k < len(points):
        raise ValueError(f"knn_accuracy: k must lie in [1, {len(points) - 1}], got {k}.")
    num_classes = int(classes.max()) + 1
    hits = 0
    for rows in blocks(points, len(points), block_elements):
        similarities = points[rows] @ points.T
        similarities.diagonal(rows.start).fill_(-math.inf)
        predicted = majority_of_nearest(similarities, classes, k, num_classes)
        hits += int((predicted == classes[rows]).sum())
    return hits / len(points)


def _sums(points: Tensor, classes: Tensor, block_elements: int) -> tuple[Tensor, Tensor]:
    """Sum of each class's points in float64, shape (classes, d), and the number of them."""
    sizes = classes.bincount()
    sums = points.new_zeros(len(sizes), points.shape[1], dtype=torch.float64)
    for rows in blocks(points, points.shape[1], block_elements):
        sums.index_add_(0, classes[rows], points[rows].double())
    return sums, sizes
