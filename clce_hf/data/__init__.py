"""Images and labels: read from the Hub or folders, transformed, mixed and grouped into batches.

The presets of the paper's benchmarks live here, too. Nothing here knows a model or a loss.
"""
