import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clce_hf.data.low_shot import low_shot_rows


@given(st.lists(st.integers(3, 9), min_size=2, max_size=5), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_low_shot_images_are_so_many_of_each_class(sizes, seed):
    labels = torch.cat([torch.full((size,), 3 * i) for i, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    few, more = low_shot_rows(labels, 2, seed), low_shot_rows(labels, 3, seed)
    assert set(few) <= set(more) and more == sorted(more)
    assert labels[few].unique(return_counts=True)[1].tolist() == [2] * len(sizes)
    assert labels[more].unique(return_counts=True)[1].tolist() == [3] * len(sizes)


def test_a_class_too_small_for_the_shots_is_named():
    labels = torch.tensor([0, 0, 0, 1])
    with pytest.raises(ValueError, match=r"2 shots need 2 .*but class bee has 1"):
        low_shot_rows(labels, 2, 0, ["ant", "bee"])
    with pytest.raises(ValueError, match="but class 1 has 1"):
        low_shot_rows(labels, 2, 0)
