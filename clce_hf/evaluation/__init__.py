"""What is measured of a trained classifier: accuracy, calibration, episodes, embeddings.

Metrics are functions of tensors; `inference` makes these tensors, `record` keeps them. Drawing them
lives in `reports`, comparing several models in `comparison`.
"""
