import pytest

from clce_hf.comparison.methods import METHODS, Method, read_methods, vary
from clce_hf.loss.hyperparameters import Hyperparameters


def test_the_paper_is_a_method():
    settings = dict(METHODS["clce-paper"].settings)
    assert settings.pop("memory_size") == 0
    assert settings == Hyperparameters()._asdict()


def test_only_methods_with_a_contrastive_term_are_varied():
    supcon = METHODS["supcon"]
    methods = [METHODS["ce"], supcon]
    assert vary(methods) == methods
    assert vary(methods, temperature=[0.1, 0.5], contrastive_weight=[]) == [
        METHODS["ce"],
        Method("CE + SupCon, temperature 0.1", {**supcon.settings, "temperature": 0.1}),
        Method("CE + SupCon, temperature 0.5", {**supcon.settings, "temperature": 0.5}),
    ]


def test_values_of_a_file_have_the_types_of_their_fields(tmp_path):
    file = tmp_path / "methods.yaml"
    file.write_text(
        "slow: {learning_rate: 1e-5, samples_per_class: 4, bf16: 'true', optim: adamw_torch}\n"
        "7: {contrastive_weight: 0, projection_dim: null, variant: out}\n"
    )
    slow, other = read_methods(file)
    assert (slow.name, other.name) == ("slow", "7")
    expected = {"learning_rate": 1e-5, "samples_per_class": 4, "bf16": True, "optim": "adamw_torch"}
    assert slow.settings == expected
    assert other.settings == {"contrastive_weight": 0, "projection_dim": None, "variant": "out"}
    json = tmp_path / "methods.json"
    json.write_text('{"mine": {"beta": 2.0}}')
    assert read_methods(json) == [Method("mine", {"beta": 2.0})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("mine: {tau: 0.1}", "mine has no field tau"),
        ("mine: {beta: much}", "mine, beta: invalid float value: 'much'"),
        ("mine: {variant: up}", "mine, variant: invalid choice: 'up'"),
        ("mine: 3", "methods.yaml must map the name of each method to its fields"),
        ("[mine]", "methods.yaml must map names to values"),
        ("mine: {", "methods.yaml cannot be read: .*line 1"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    file = tmp_path / "methods.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_methods(file)
