"""Which checkpoint a run goes on from, and what to say of it where a run ends early."""

from pathlib import Path

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from clce_hf.errors import ArgumentError

_STATE_FILE = "trainer_state.json"


def checkpoint_of(args: TrainingArguments) -> str | None:
    """Return the folder to resume from, None to start anew.

    It is the one that is named, or for `true` the last one of output_dir; `false` is none.

    Raises:
        ArgumentError: if there is none to resume from.
    """
    named = args.resume_from_checkpoint
    if named is None or str(named).lower() == "false":
        return None
    if str(named).lower() == "true":
        last = _last_checkpoint(args)
        if last is None:
            raise ArgumentError(
                "resume_from_checkpoint",
                f"there is no checkpoint in {args.output_dir!r}: leave it out to train from the "
                "start.",
            )
        return last
    if not named or not Path(named).is_dir():
        problem = f"there is no folder {named!r}."
    elif not Path(named, _STATE_FILE).is_file():
        problem = f"{named!r} is no checkpoint of a training: it holds no {_STATE_FILE}."
    else:
        return named
    raise ArgumentError(
        "resume_from_checkpoint",
        f"{problem} Name one such as OUTPUT_DIR/checkpoint-500, or true for the last one of "
        "output_dir.",
    )


def how_far(trainer: Trainer) -> str:
    """Say in words which step a training has done, and how to go on from its last checkpoint."""
    state, last = trainer.state, _last_checkpoint(trainer.args)
    if state.max_steps == 0:
        return "starting to train"
    done = f"training, after step {state.global_step} of {state.max_steps}"
    if last is None:
        return f"{done}; there is no checkpoint yet"
    return f"{done}; the last checkpoint is {last}: --resume_from_checkpoint true goes on from it"


def _last_checkpoint(args: TrainingArguments) -> str | None:
    folder = str(args.output_dir)
    return get_last_checkpoint(folder) if Path(folder).is_dir() else None
