"""`PublishingTrainer`: Transformers' Trainer with a model card of its own and pushes that can fail.

Whatever fails on the way to the Hub, what was trained is saved first, and the error says so.
"""

import inspect
import logging
import shutil
from pathlib import Path
from typing import Any, cast

from huggingface_hub import CommitInfo
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from clce_hf.hub.base_model import bases_of_adapters, clean_card, warn_of_folders
from clce_hf.hub.model_card import CardFacts, CardMethod, loads_with, rewrite_model_card
from clce_hf.hub.results import Source, source_of
from clce_hf.hub.settings import training_settings
from clce_hf.hub.unsaved_token import UnsavedToken
from clce_hf.loss.logit_adjustment import LogitAdjustedLoss
from clce_hf.models.adapted_config import save_adapted_config
from clce_hf.models.class_names import class_names

logger = logging.getLogger(__name__)


class PublishingTrainer(Trainer):
    """`transformers.Trainer` that pushes a complete model card and loses nothing when a push fails.

    The constructor is that of `Trainer`.
    """

    pushed_files: tuple[str, ...] = ()
    """Files of a checkpoint, beside those that Trainer knows, to be pushed with the model."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._evaluated_on: dict[str, Source] = {}
        super().__init__(*args, **named)
        self._keep_token_from_files()

    # ---- what a subclass tells of its method ----

    def card_method(self) -> CardMethod:
        """Return how the model card names the method."""
        return CardMethod("cross-entropy.", citation="")

    def card_settings(self) -> dict[str, str]:
        """Return the settings that the model card lists, by name."""
        return training_settings(self.args, self._train_batch_size)

    def draw_pictures(self, folder: Path) -> dict[str, Path]:
        """Draw the pictures of the model card into `folder`; return the files by caption."""
        return {}

    # ---- the card ----

    def create_model_card(self, *args: Any, pictures: bool = False, **named: Any) -> None:
        """Write the model card, `README.md` in `output_dir`.

        It holds the metrics, the settings of the training, how to load the model and what to cite.

        Args:
            args: those of `Trainer.create_model_card`.
            pictures: whether to draw the training curve and a map of the embeddings of the last
                evaluation, too, which takes seconds and the `reports` extra.
            named: those of `Trainer.create_model_card`.

        Raises:
            ModuleNotFoundError: for pictures without the `reports` extra.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(cast(str, self.args.output_dir))
        # First, so that a card that is there survives an extra that is not.
        drawn = self.draw_pictures(folder) if pictures else {}
        super().create_model_card(*args, **named)
        keeps_best = self.args.load_best_model_at_end and self.state.best_global_step
        loss = self.compute_loss_func
        facts = CardFacts(
            name=self.hub_model_id or folder.absolute().name,
            class_names=class_names(cast(Any, self.model).config),
            trained_on=source_of(self.train_dataset),
            evaluated_on=self._held_out(),
            method=self.card_method(),
            settings=self.card_settings(),
            log_history=self.state.log_history,
            best_step=self.state.best_global_step if keeps_best else None,
            pictures=drawn,
            is_for_equal_classes=isinstance(loss, LogitAdjustedLoss) and loss.tau > 0,
            loads_with=loads_with(cast(nn.Module, self.model)),
            bases_of_adapters=list(bases_of_adapters(self.model).values()),
            arguments=inspect.signature(super().create_model_card).bind(*args, **named).arguments,
        )
        rewrite_model_card(folder / "README.md", facts)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as Trainer does, and remember for the card where the data set came from."""
        self._evaluated_on[metric_key_prefix] = source_of(getattr(dataloader, "dataset", None))
        return super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )

    def _held_out(self) -> dict[str, Source]:
        """Return data sets by the prefix of their metrics, those that were evaluated on last."""
        held_out: Any = self.eval_dataset
        parts = held_out.items() if isinstance(held_out, dict) else ()
        named = {f"eval_{name}": part for name, part in parts} or {"eval": held_out}
        return {k: source_of(part) for k, part in named.items()} | self._evaluated_on

    # ---- what is saved ----

    def save_model(self, output_dir: str | None = None, *args: Any, **named: Any) -> None:
        """Save as Trainer does, without the folder of a base model in the card."""
        super().save_model(output_dir, *args, **named)
        if self.args.should_save:
            self._complete_adapter(cast(str, output_dir or self.args.output_dir))

    def _save(self, *args: Any, **named: Any) -> None:
        self._keep_token_from_files()  # again, since it may be set at any time
        super()._save(*args, **named)

    def _keep_token_from_files(self) -> None:
        if self.args.hub_token is not None:
            self.args.hub_token = UnsavedToken(self.args.hub_token)

    def _complete_adapter(self, folder: str) -> None:
        """Save what PEFT does not save beside an adapter, and mend its card."""
        if "PEFT" in loads_with(cast(nn.Module, self.model)):
            save_adapted_config(cast(Any, self.model).config, folder)
            clean_card(folder)

    # ---- pushes ----

    def push_to_hub(self, *args: Any, **named: Any) -> CommitInfo:
        """Save the model, write its card and upload both.

        Args:
            args: those of `Trainer.push_to_hub`.
            named: those of `Trainer.push_to_hub` and of `create_model_card`.

        Raises:
            HfHubHTTPError: if the Hub refuses. What was trained is saved all the same.
        """
        # Trainer saves only once the repository is made, which may fail, too.
        self.save_model(_internal_call=True)
        if self.is_world_process_zero():
            warn_of_folders(self.model)
        try:
            return super().push_to_hub(*args, **named)
        except Exception:
            self._explain_failed_push("The model")
            raise

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.args.hub_always_push:
            # The files that an earlier upload still reads are about to be overwritten.
            self._finish_current_push()
        self._report_failed_pushes()
        if getattr(self, "push_in_progress", None) is not None:
            # Trainer leaves this one out, and the files are still being read.
            super()._push_from_checkpoint(checkpoint_folder)
            return
        if self.is_world_process_zero():
            warn_of_folders(self.model)
            self._complete_adapter(cast(str, self.args.output_dir))
        for name in self.pushed_files if self.is_world_process_zero() else ():
            file = Path(checkpoint_folder, name)
            if file.is_file():
                shutil.copy(file, cast(str, self.args.output_dir))
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        self._report_failed_pushes()

    def _report_failed_pushes(self) -> None:
        """Log the errors of uploads in the background, which Trainer does not read."""
        push = getattr(self, "push_in_progress", None)
        if push is None or not push.is_done():
            return
        errors = [error for job in push.jobs if (error := job.exception())]
        for error in {str(error): error for error in errors}.values():
            self._explain_failed_push("A checkpoint", error)
        self.push_in_progress = None

    def _explain_failed_push(self, what: str, error: BaseException | None = None) -> None:
        logger.error(
            f"{what} was not uploaded, but nothing is lost: it is saved in output_dir. Once the "
            "Hub accepts uploads again, call trainer.push_to_hub(), or run `hf upload "
            f"{self.hub_model_id or 'USER/MODEL'} OUTPUT_DIR`.",
            exc_info=error,
        )
