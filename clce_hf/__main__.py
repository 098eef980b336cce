"""Run the command line with `python -m clce_hf`."""

from clce_hf.cli.main import main

if __name__ == "__main__":
    main()
