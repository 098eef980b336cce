"""Images and labels: read from the Hub, folders or presets, transformed, mixed, drawn in batches.

A source says where images are stored, a preset how a known data set is split. Nothing here knows a
model, a loss or a flag of the command line.
"""

from clce_hf.data.class_counts import label_counts
from clce_hf.data.load import load_benchmark, load_labeled_images, load_splits
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.data.mixing import MixingCollator, mix_training, with_one_hot_labels
from clce_hf.data.presets import PRESETS, Preset
from clce_hf.data.sampler import GroupByLabelSampler
from clce_hf.data.sources import HubDataset, ImageFolders
from clce_hf.data.transforms import evaluation_rows, training_rows, with_images

__all__ = [
    "PRESETS",
    "GroupByLabelSampler",
    "HubDataset",
    "ImageFolders",
    "MixingCollator",
    "Preset",
    "evaluation_rows",
    "label_counts",
    "load_benchmark",
    "load_labeled_images",
    "load_splits",
    "low_shot_rows",
    "mix_training",
    "training_rows",
    "with_images",
    "with_one_hot_labels",
]
