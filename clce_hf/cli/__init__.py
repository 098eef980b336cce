"""The command line: `train`, `evaluate`, `compare` and `demo`.

Flags become values here and nowhere else; everything below takes values. What a command does lives
in the other rooms.
"""
