"""What is done to a model: find its classification layer, read embeddings, add a projection head.

Loading a checkpoint and learning rates by layer live here, too. What a model is trained on lives in
`data`, how it is trained in `training`.
"""
