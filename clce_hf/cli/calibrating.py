"""`--calibrate` of `clce-hf train`: when it is done, and what is said of it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from datasets import Dataset
from torch import Tensor

from clce_hf.cli.arguments import TrainArguments
from clce_hf.cli.errors import before_traceback
from clce_hf.cli.results import forget_results
from clce_hf.data.labels import read_labels
from clce_hf.errors import UserError
from clce_hf.trainer import CLCETrainer
from clce_hf.training.calibrating import check_images_can_be_fitted, check_model_can_be_calibrated
from clce_hf.training.left_as_it_was import why_left_as_it_was


@dataclass(frozen=True)
class Calibrated:
    """What came of `--calibrate`.

    Attributes:
        values: what `CLCETrainer.calibrate` returned; empty where nothing was done.
        why_not: the reason, where it did nothing.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    why_not: str = ""

    def lines(self) -> list[str]:
        """Return what the summary of a run says of it."""
        if self.why_not:
            return [f"  not calibrated: {self.why_not}"]
        if not self.values:
            return []
        before, after = (
            self.values[f"negative_log_likelihood_{when}"] for when in ("before", "after")
        )
        return [
            f"  temperature    {self.values['calibration_temperature']:.3f}: negative "
            f"log-likelihood {before:.4f} before, {after:.4f} after"
        ]


def check_calibrate(args: TrainArguments, trainer: CLCETrainer, held_out: Dataset) -> None:
    """Raise `UserError` before training if `--calibrate true` is sure to fail after it."""
    if args.calibrate != "true":
        return
    try:
        check_model_can_be_calibrated(trainer)
        check_images_can_be_fitted(cast(Tensor, read_labels(held_out)))
    except ValueError as error:
        raise UserError(f"--calibrate: {error}") from error


def calibrate(args: TrainArguments, trainer: CLCETrainer) -> Calibrated:
    """Calibrate the model and save it again, where the flag says so.

    Raises:
        UserError: if it was asked for and cannot be done. The model is saved without it.
    """
    if args.calibrate == "false" or (args.calibrate == "auto" and not args.do_train):
        return Calibrated()
    is_saved = f"the trained model is saved in {args.output_dir}, as it was before"
    saved = f" Nothing is lost: {is_saved}." if args.do_train else ""
    with before_traceback(lambda: f"calibrating the model.{saved}"):
        try:
            values = trainer.calibrate()
        except ValueError as error:
            if args.calibrate == "auto":
                return Calibrated(why_not=str(error))
            raise UserError(f"--calibrate: {error}{saved}") from error
        folder = Path(str(args.output_dir))
        _save(trainer, folder)
        if trainer.is_world_process_zero():
            forget_results(folder, "calibration")
        trainer.save_metrics("calibration", values)
    return Calibrated(values, why_left_as_it_was(values))


def _save(trainer: CLCETrainer, folder: Path) -> None:
    """Save the model in place of the one that is there, which stays if that fails."""
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        trainer.save_model(unfinished, _internal_call=True)
        for file in Path(unfinished).iterdir():
            file.replace(folder / file.name)
