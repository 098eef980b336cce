import pytest

from clce_hf.comparison.settings import keep_settings


def test_a_comparison_resumes_with_its_own_settings_alone(tmp_path):
    folder = tmp_path / "runs" / "comparison"
    settings = {"learning_rate": 1e-3, "optim": ValueError, "data_dir": None, "bf16": False}
    keep_settings(folder, settings)
    keep_settings(folder, settings)
    with pytest.raises(ValueError, match=r"holds .* bf16 was False, now True\.$"):
        keep_settings(folder, {**settings, "bf16": True})
