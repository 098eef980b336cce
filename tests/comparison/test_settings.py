import json
from dataclasses import dataclass, field

import pytest

from clce_hf.comparison.settings import keep_settings


@dataclass
class Settings:
    """Of which one field becomes another value."""

    learning_rate: float = 1e-3
    optim: type = ValueError
    data_dir: str | None = None
    bf16: bool = False
    layers: list[int] = field(default_factory=list)


def test_a_comparison_resumes_with_its_own_settings_alone(tmp_path):
    folder = tmp_path / "runs" / "comparison"
    keep_settings(folder, [Settings()], apart_from=["data_dir"])
    keep_settings(folder, [Settings(data_dir="photos")], apart_from=["data_dir"])
    with pytest.raises(ValueError, match=r"settings: bf16 was False, now True\. Name another"):
        keep_settings(folder, [Settings(bf16=True)], apart_from=["data_dir"])


@dataclass
class Later(Settings):
    memory_size: int = 1024
    head_init: str = "auto"
    logit_adjustment: float = 0.0


def test_an_older_folder_had_what_was_done_before_there_were_these_settings(tmp_path):
    file = tmp_path / "settings.json"
    keep_settings(tmp_path, [Settings()])
    older = json.loads(file.read_text())
    with pytest.raises(
        ValueError, match="settings: memory_size was 0, now 1024; head_init was none, now auto"
    ):
        keep_settings(tmp_path, [Later()])
    assert json.loads(file.read_text()) == older
    same = Later(memory_size=0, head_init="none")
    keep_settings(tmp_path, [same])
    completed = {"memory_size": 0, "head_init": "none", "logit_adjustment": 0.0}
    assert json.loads(file.read_text()) == older | completed
    keep_settings(tmp_path, [same])


def test_a_setting_of_which_nothing_is_known_is_refused(tmp_path):
    keep_settings(tmp_path, [Settings()])
    file = tmp_path / "settings.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({name: kept[name] for name in kept if name != "layers"}))
    with pytest.raises(
        ValueError,
        match=r"another version, which did not keep layers, so its .* Name another output_dir",
    ):
        keep_settings(tmp_path, [Settings()])


@pytest.mark.parametrize("text", ["[]", "null", '{"bf16"'])
def test_a_file_that_holds_no_settings_is_refused(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings.json' is not what was written there: "):
        keep_settings(tmp_path, [Settings()])
