import math
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.tiny import Images, config, vit
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder
from transformers import TrainerControl, TrainerState

from clce_hf import CLCETrainer, GroupByLabelSampler
from clce_hf.data.sampler import SamplerEpoch


def assert_contract(labels, order, samples_per_class, batch_size):
    """The contract of the sampler, checked on the order of one epoch."""
    labels = torch.as_tensor(labels)
    groups = torch.tensor(order).view(-1, samples_per_class)
    classes = labels[groups]
    assert (classes == classes[:, :1]).all(), "a group mixes classes"
    sizes = Counter(labels.tolist())
    times = Counter(order)
    assert times.keys() == set(range(len(labels))), "an image is missing"
    for label, size in sizes.items():
        surplus = sum(times[i] - 1 for i in range(len(labels)) if labels[i] == label)
        assert surplus == -size % samples_per_class, "more is repeated than the last group lacks"
    for group, label in zip(groups.tolist(), classes[:, 0].tolist(), strict=True):
        if sizes[label] >= samples_per_class:
            assert len(set(group)) == samples_per_class, "a group repeats an image"
    whole = Counter(classes[:, 0].tolist())
    left, total = Counter(whole), whole.total()
    per_batch = batch_size // samples_per_class
    for batch in classes[:, 0].split(per_batch):
        drawn = Counter(batch.tolist())
        most = {label: math.ceil(per_batch * count / total) for label, count in whole.items()}
        if any(drawn[label] < min(left[label], most[label]) for label in left):
            assert all(drawn[label] <= most[label] for label in left), "more than its share"
        left -= drawn


@pytest.mark.filterwarnings("ignore:.*have fewer than samples_per_class")
@settings(deadline=None, max_examples=80)
@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=60).filter(lambda y: len(set(y)) > 1),
    samples_per_class=st.integers(2, 5),
    groups=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 100),
)
def test_every_order_keeps_the_contract(labels, samples_per_class, groups, seed, epoch):
    batch_size = groups * samples_per_class
    sampler = GroupByLabelSampler(torch.tensor(labels), samples_per_class, batch_size, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert_contract(labels, order, samples_per_class, batch_size)
    again = GroupByLabelSampler(torch.tensor(labels), samples_per_class, batch_size, seed)
    again.set_epoch(epoch)
    assert list(again) == order


@pytest.mark.parametrize(("sizes", "batch_size"), [((6, 6, 6), 4), ((4, 4, 4, 2), 6)])
def test_no_class_has_more_of_a_batch_than_its_share(sizes, batch_size):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    for seed in range(40):
        order = list(GroupByLabelSampler(labels, 2, batch_size, seed))
        assert_contract(labels, order, 2, batch_size)


def test_seed_and_epoch_decide_the_order():
    labels = torch.arange(64) % 8
    orders = set()
    for seed in range(4):
        for epoch in range(4):
            sampler = GroupByLabelSampler(labels, 4, 8, seed)
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 16
    state = torch.get_rng_state()
    list(GroupByLabelSampler(labels, 4, 8))
    assert torch.equal(state, torch.get_rng_state())


def test_neighboring_seeds_and_epochs_do_not_share_orders():
    """Of any seed that Trainer takes: hash(-1) is hash(-2), and a sum has many summands."""
    labels = torch.arange(64) % 8
    seeds = [*range(-3, 4), 2**31 - 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, -(2**63)]
    orders = {}
    for seed in seeds:
        sampler = GroupByLabelSampler(labels, 4, 8, seed)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            orders[seed, epoch] = tuple(sampler)
    assert len(set(orders.values())) == len(orders) == 4 * len(seeds)


@pytest.mark.parametrize("batch_size", [8, 40, 200])
def test_class_frequencies_hold_throughout_the_epoch(batch_size):
    sizes = torch.tensor([700, 300, 120, 60, 20])
    labels = torch.arange(5).repeat_interleave(sizes)
    orders = [list(GroupByLabelSampler(labels, 4, batch_size, seed)) for seed in range(60)]
    for part in labels[torch.tensor(orders)].chunk(6, dim=1):
        shares = part.flatten().bincount() / part.numel()
        torch.testing.assert_close(shares, sizes / sizes.sum(), atol=0.02, rtol=0)


def test_groups_of_a_batch_are_of_different_classes_where_none_is_too_large():
    labels = torch.arange(7).repeat(40)
    for seed in range(20):
        order = torch.tensor(list(GroupByLabelSampler(labels, 4, 20, seed)))
        left = torch.full((7,), 10)
        for classes in labels[order[::4]].split(5):
            drawn = classes.bincount(minlength=7)
            assert drawn.max() == 1 or (left > 0).sum() < len(classes)
            left -= drawn


def test_a_class_smaller_than_a_group_repeats_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 classes have fewer than samples_per_class=4"):
        sampler = GroupByLabelSampler(torch.tensor([0] * 8 + [1] * 3), 4, 8)
    assert Counter(list(sampler))[8] + Counter(list(sampler))[9] + Counter(list(sampler))[10] == 4


@pytest.mark.filterwarnings("ignore:.*have fewer than samples_per_class")
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_batch_of_every_rank_is_made_of_whole_groups(ranks, size, drop_last):
    labels = torch.randint(6, (size,), generator=torch.Generator().manual_seed(0))
    seen: Counter = Counter()
    for rank in range(ranks):
        loader = prepare_data_loader(
            DataLoader(
                TensorDataset(torch.arange(size)),
                batch_size=8,
                sampler=GroupByLabelSampler(labels, 4, 8, seed=3),
                drop_last=drop_last,
            ),
            num_processes=ranks,
            process_index=rank,
            put_on_device=False,
        )
        for epoch in range(2):
            loader.set_epoch(epoch)
            batches = [batch[0] for batch in loader]
            assert batches
            for batch in batches:
                groups = labels[batch].view(-1, 4)
                assert (groups == groups[:, :1]).all()
            if epoch == 1:
                seen.update(torch.cat(batches).tolist())
    order = GroupByLabelSampler(labels, 4, 8, seed=3)
    order.set_epoch(1)
    if drop_last:
        assert seen.keys() <= set(order)
    else:
        assert seen.keys() == set(range(size))
        assert not Counter(order) - seen


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_resumes_in_the_middle_of_an_epoch_has_its_order(rank, tmp_path):
    labels = torch.arange(64) % 4
    sampler = GroupByLabelSampler(labels, 4, 8, seed=3)
    loader = prepare_data_loader(
        DataLoader(TensorDataset(torch.arange(64)), batch_size=8, sampler=sampler),
        num_processes=2,
        process_index=rank,
        put_on_device=False,
    )
    loader = skip_first_batches(loader, 1)
    loader.set_epoch(2)  # which does not reach the sampler
    state, control = TrainerState(epoch=2.25), TrainerControl()
    SamplerEpoch().on_epoch_begin(config(tmp_path), state, control, train_dataloader=loader)
    order = GroupByLabelSampler(labels, 4, 8, seed=3)
    order.set_epoch(2)
    batches = torch.tensor(list(order)).split(8)
    assert [batch[0].tolist() for batch in loader] == [
        batch.tolist() for batch in batches[rank::2][1:]
    ]


class Recorded(Images):
    """Notes which images are asked for."""

    def __init__(self):
        super().__init__()
        self.order = []

    def __getitem__(self, index):
        self.order.append(int(index))
        return super().__getitem__(index)


def test_the_trainer_has_an_order_for_each_epoch_also_where_it_resumes(tmp_path):
    args = config(
        tmp_path, samples_per_class=4, max_steps=12, save_strategy="steps", save_steps=6, seed=5
    )
    images = Recorded()
    CLCETrainer(vit(), args, train_dataset=images).train()
    sampler, expected = GroupByLabelSampler(torch.tensor(images.targets), 4, 8, seed=5), []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected.append(list(sampler))
    assert images.order == [*expected[0], *expected[1], *expected[2]]
    assert expected[0] != expected[1] != expected[2] != expected[0]
    images.order.clear()
    resumed = CLCETrainer(vit(), args, train_dataset=images)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert images.order == [*expected[1][16:], *expected[2]]


def folder_of_images(root, labels):
    for i, label in enumerate(labels):
        (root / str(label)).mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.full((16, 16, 3), 7 * i, np.uint8)).save(root / str(label) / f"{i}.png")


def test_the_trainer_groups_every_kind_of_dataset(tmp_path):
    labels = [0, 1, 2, 3] * 8
    folder_of_images(tmp_path / "images", labels)
    to_pixels = {"transform": lambda image: torch.tensor(np.array(image)).permute(2, 0, 1) / 255.0}
    image_folder = ImageFolder(str(tmp_path / "images"), **to_pixels)
    hf_dataset = datasets.Dataset.from_dict({"x": list(range(32)), "label": labels})
    hf_dataset.set_transform(
        lambda rows: {
            "pixel_values": [torch.full((3, 16, 16), float(x)) for x in rows["x"]],
            "labels": rows["label"],
        }
    )

    def collate(rows):
        if isinstance(rows[0], tuple):
            rows = [{"pixel_values": image, "labels": label} for image, label in rows]
        return {
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    for dataset in (image_folder, hf_dataset, Images(32)):
        trainer = CLCETrainer(
            vit(),
            config(tmp_path, samples_per_class=2, remove_unused_columns=False),
            train_dataset=dataset,
            data_collator=collate,
        )
        for batch in trainer.get_train_dataloader():
            pairs = batch["labels"].view(-1, 2)
            assert (pairs[:, 0] == pairs[:, 1]).all()
            assert len(pairs[:, 0].unique()) == 4
        trainer.train()
