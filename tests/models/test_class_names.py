"""Names of a model's classes."""

from support.tiny import config, vit

from clce_hf import CLCETrainer
from clce_hf.models.class_names import class_names

NAMES = [f"class {i}" for i in range(12)]


def test_keys_that_are_no_numbers_keep_their_order():
    model = vit(num_labels=2)
    model.config.id2label = {"b": 0, "a": 1}
    assert class_names(model.config) == ["0", "1"]


def test_keys_that_are_strings_are_numbers(tmp_path):
    """As Transformers' guide makes them; in the order of strings, 10 comes before 2."""
    model = vit(num_labels=12)
    model.config.id2label = {str(i): name for i, name in enumerate(NAMES)}
    assert class_names(model.config) == NAMES
    trainer = CLCETrainer(model, config(tmp_path))
    trainer.create_model_card()
    assert ", ".join(NAMES) in (tmp_path / "README.md").read_text()
