"""Let the processes that a launcher started work side by side instead of together."""

import os

_OF_THE_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)


def leave_process_group() -> None:
    """Forget the other processes of `accelerate launch`, and take one GPU for this process.

    Call it before anything asks Accelerate or CUDA which processes and devices there are.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    for name in _OF_THE_LAUNCHER:
        os.environ.pop(name, None)
    if local_rank is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = (
            visible.split(",")[int(local_rank)] if visible else local_rank
        )
