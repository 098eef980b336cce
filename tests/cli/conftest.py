import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    from support.tiny import vit
    from transformers import ViTImageProcessor

    root = tmp_path_factory.mktemp("checkpoint")
    vit().save_pretrained(root)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(root)
    return str(root)
