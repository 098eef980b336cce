"""Several methods, trained over paired seeds: the grid, its resumable runs, their tables.

Drawing lives in `reports`, the command in `cli`.
"""
