"""The one line that is swapped in a script."""

STOCK = "from transformers import Trainer, TrainingArguments\n"
SWAPPED = "from transformers import TrainingArguments\nfrom clce_hf import CLCETrainer as Trainer\n"
