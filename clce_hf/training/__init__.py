"""The parts of a training step that `CLCETrainer` puts together.

The forward pass, plain or cached, the objective, the meters behind the log, the checks before
training and the files of a checkpoint. The loss itself lives in `loss`, evaluation in `evaluation`.
"""
