"""An untrained ViT that is small enough to learn the digits in seconds on a CPU."""

from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from clce_hf.models.class_names import label_settings

IMAGE_SIZE = 8


def small_vit(names: list[str]) -> tuple[ViTForImageClassification, ViTImageProcessor]:
    """Return a ViT of 0.14 M parameters for these classes, and its image processor.

    Args:
        names: of the classes, in the order of the logits.
    """
    config = ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=2,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        **label_settings(names),
    )
    processor = ViTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return ViTForImageClassification(config), processor
