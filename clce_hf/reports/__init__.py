"""Pictures and pages of records: the only room that draws.

It takes what `evaluation` recorded and needs the `reports` extra. It trains and measures nothing.
"""
