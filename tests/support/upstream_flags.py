"""Flags of Transformers' run_image_classification.py beside those of `TrainingArguments`."""

UPSTREAM = {
    "model_name_or_path": "google/vit-base-patch16-224-in21k",
    "model_type": None,
    "config_name": None,
    "cache_dir": None,
    "model_revision": "main",
    "image_processor_name": None,
    "token": None,
    "trust_remote_code": False,
    "ignore_mismatched_sizes": False,
    "dataset_name": None,
    "dataset_config_name": None,
    "train_dir": None,
    "validation_dir": None,
    "train_val_split": 0.15,
    "max_train_samples": None,
    "max_eval_samples": None,
    "image_column_name": "image",
    "label_column_name": "label",
}
"""Their defaults, by name, written down from its source."""
