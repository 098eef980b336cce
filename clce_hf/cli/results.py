"""The files of metrics in an output folder, which are of one model."""

import json
from pathlib import Path


def forget_results(folder: Path, *splits: str) -> None:
    """Delete the metrics of an earlier model, which those of a new one may lack.

    `Trainer.save_metrics` writes over what has the same name alone.

    Args:
        folder: with the files that it writes: `train_results.json` and the like, and
            `all_results.json`, which loses what they hold.
        splits: which of them, such as `"train"`.
    """
    combined = folder / "all_results.json"
    for file in [folder / f"{split}_results.json" for split in splits]:
        if not file.exists():
            continue
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # cut off while it was written
            old = {}
        if old and combined.exists():
            kept = json.loads(combined.read_text(encoding="utf-8"))
            kept = {name: value for name, value in kept.items() if name not in old}
            combined.write_text(json.dumps(kept, indent=4, sort_keys=True), encoding="utf-8")
        file.unlink()
