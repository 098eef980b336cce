"""Logistic regression for many few-shot episodes at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_STEPS = 500
_TOLERANCE = 1e-4


def logistic_scores(support: Tensor, query: Tensor) -> Tensor:
    """Fit a multinomial logistic regression to each episode and score its queries.

    It minimizes the sum of the losses plus half the squared weights, biases aside.

    Args:
        support: points of length 1 to learn from, shape (episodes, n, k, d), class by class.
        query: points to classify, shape (episodes, m, d).

    Returns:
        A score for each class, shape (episodes, m, n).
    """
    # The weights are combinations of the n k support points, so these are written in an
    # orthonormal basis of their own first: at most n k numbers each instead of d.
    num_episodes, n_way, k_shot, _ = support.shape
    points = support.flatten(1, 2)
    basis, triangle = torch.linalg.qr(points.transpose(1, 2))
    inputs = triangle.transpose(1, 2)
    truth = torch.arange(n_way, device=points.device).repeat_interleave(k_shot)
    truth = F.one_hot(truth, n_way).to(points.dtype)

    # Nesterov's method with restarts. The Hessian of the softmax is at most 1/2; the points have
    # length 1, and the biases, which are not penalized, see the number of points.
    largest = torch.linalg.matrix_norm(inputs @ inputs.transpose(1, 2), ord=2) + n_way * k_shot
    step = (1.0 / (1.0 + 0.5 * largest))[:, None, None]
    weights = points.new_zeros(num_episodes, inputs.shape[2], n_way)
    biases = points.new_zeros(num_episodes, 1, n_way)
    ahead, ahead_biases, momentum = weights, biases, points.new_ones(num_episodes, 1, 1)
    for _ in range(_MAX_STEPS):
        errors = torch.softmax(inputs @ ahead + ahead_biases, dim=2) - truth
        slope = inputs.transpose(1, 2) @ errors + ahead
        bias_slope = errors.sum(1, keepdim=True)
        if max(slope.abs().max(), bias_slope.abs().max()) < _TOLERANCE:
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
