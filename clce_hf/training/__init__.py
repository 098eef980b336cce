"""The parts of a training step that `CLCETrainer` puts together.

The forward pass, plain or cached, the objective, the meters behind the log, the checks before
training and the weights of a checkpoint. The loss functions live in `loss`, and what is measured of
a trained model in `evaluation`.
"""

from clce_hf.training.forward import Forward, Forwarded
from clce_hf.training.gradcache import forward_in_mini_batches
from clce_hf.training.meters import Meters
from clce_hf.training.objective import Objective, Terms

__all__ = ["Forward", "Forwarded", "Meters", "Objective", "Terms", "forward_in_mini_batches"]
