"""Train the last blocks of a checkpoint on features that the frozen blocks below made once.

The features of several augmented views of each training image, and of the plain view of each
validation and test image, are kept in a folder. A model of the last blocks takes them for pixels;
it is the checkpoint with its lower part frozen, many times as fast.
"""

from pathlib import Path

import torch
from datasets import DatasetDict, load_dataset
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification, Dinov2ForImageClassification

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIEWS = 4


class Taken(nn.Module):
    """Takes the place of the frozen part: its input is the features of that part."""

    def forward(self, features, *args, **kwargs):
        return features.float()


def split_model(model, trained_blocks):
    """Return the frozen part as a function of pixels, and the model of the rest."""
    if isinstance(model, Dinov2ForImageClassification):
        vit = model.dinov2
        blocks = vit.encoder.layer
        embeddings, below = vit.embeddings, list(blocks[: len(blocks) - trained_blocks])
        vit.encoder.layer = blocks[len(blocks) - trained_blocks :]
        vit.embeddings = Taken()
        vit.embeddings.patch_size = embeddings.patch_size

        def frozen(pixels):
            hidden = embeddings(pixels)
            for block in below:
                hidden = block(hidden)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return hidden

        return frozen, model
    net = model.timm_model
    below = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[: len(net.blocks) - trained_blocks])
    below.eval()
    net.blocks = net.blocks[len(net.blocks) - trained_blocks :]
    net.conv_stem, net.bn1 = Taken(), nn.Identity()
    return below, model


def load_tail(checkpoint, num_classes, trained_blocks):
    """The last blocks with a new head; `torch.manual_seed` decides the head."""
    model = AutoModelForImageClassification.from_pretrained(
        checkpoint, num_labels=num_classes, ignore_mismatched_sizes=True
    )
    if trained_blocks is None:
        return model
    return split_model(model, trained_blocks)[1]


class Features(torch.utils.data.Dataset):
    """Features (n, views, ...) of which one view is drawn; labels are readable as `targets`."""

    def __init__(self, features, labels):
        self.features, self.targets = features, labels

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        views = self.features[index]
        view = views[torch.randint(len(views), ()).item()] if len(views) > 1 else views[0]
        return {"pixel_values": view, "labels": self.targets[index].item()}

    def of(self, rows):
        return Features(_Rows(self.features, rows), self.targets[rows])

    def only(self, classes):
        """The images of these classes, numbered in this order."""
        number = {label: i for i, label in enumerate(classes)}
        rows = [i for i, label in enumerate(self.targets.tolist()) if label in number]
        chosen = self.of(torch.tensor(rows))
        chosen.targets = torch.tensor([number[label] for label in chosen.targets.tolist()])
        return chosen


class _Rows:
    """Some rows of a tensor, without copying them."""

    def __init__(self, whole, rows):
        self.whole, self.rows = whole, rows

    def __getitem__(self, index):
        return self.whole[self.rows[index]]


def splits(data) -> DatasetDict:
    """Train, validation and test; where there is no validation, 15 % of the training images."""
    folders = load_dataset("imagefolder", data_dir=str(data))
    if "validation" not in folders:
        parts = folders["train"].train_test_split(0.15, seed=0, stratify_by_column="label")
        folders["train"], folders["validation"] = parts["train"], parts["test"]
    return folders


def features(data, checkpoint, size, trained_blocks, cache) -> dict[str, Features]:
    """Features of all splits, from the cache where they are there; None as blocks: pixels."""
    name = f"{Path(data).name}-{Path(checkpoint).name}-{size}-{trained_blocks}.safetensors"
    file = Path(cache) / name
    if not file.exists():
        Path(cache).mkdir(parents=True, exist_ok=True)
        save_file(_make(data, checkpoint, size, trained_blocks), file)
    tensors = load_file(file)
    return {
        split: Features(tensors[split], tensors[f"{split}.labels"])
        for split in ("train", "validation", "test")
    }


def _make(data, checkpoint, size, trained_blocks):
    torch.manual_seed(0)
    to_pixels = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    augment = v2.Compose(
        [v2.RandomResizedCrop(size, scale=(0.6, 1.0)), v2.RandomHorizontalFlip(), *to_pixels]
    )
    plain = v2.Compose([v2.Resize(size), v2.CenterCrop(size), *to_pixels])
    frozen = None
    if trained_blocks is not None:
        frozen, _ = split_model(
            AutoModelForImageClassification.from_pretrained(checkpoint).eval(), trained_blocks
        )
    made = {}
    for split, dataset in splits(data).items():
        views, transform = (VIEWS, augment) if split == "train" else (1, plain)
        rows = []
        with torch.no_grad():
            for start in range(0, len(dataset), 16):
                images = [image.convert("RGB") for image in dataset[start : start + 16]["image"]]
                pixels = torch.stack([transform(i) for i in images for _ in range(views)])
                hidden = pixels if frozen is None else frozen(pixels)
                rows.append(hidden.half().unflatten(0, (len(images), views)))
        made[split] = torch.cat(rows)
        made[f"{split}.labels"] = torch.tensor(dataset["label"])
        print(f"{split}: {tuple(made[split].shape)}", flush=True)
    return made
