"""Time the training steps of several trainers that take turns in one process."""

import threading
import time

import torch
from transformers import TrainerCallback


def seconds_of_steps(trainers, turns, warm_up=1):
    """Return the seconds of each trainer's steps, `turns` of them, side by side.

    Each trainer trains in a thread of its own, as its `train()` does, but one step at a time runs:
    in each turn all of them make one, in an order that is reversed from turn to turn.

    Args:
        trainers: whose `max_steps` is at least `warm_up + turns`.
        turns: steps that are timed.
        warm_up: steps before them.
    """
    places = list(range(len(trainers)))
    clock = _Clock([places, places[::-1]] * (warm_up + turns))
    threads = []
    for place, trainer in enumerate(trainers):
        trainer.add_callback(_TakesTurns(clock, place))
        threads.append(threading.Thread(target=clock.run, args=(trainer.train,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if clock.error is not None:
        raise clock.error
    return [clock.seconds[place][warm_up : warm_up + turns] for place in places]


class _Clock:
    def __init__(self, rounds):
        self.order = [place for turn in rounds for place in turn]
        self.seconds = {place: [] for place in self.order}
        self.error = None
        self.changed = threading.Condition()

    def run(self, train):
        try:
            train()
        except BaseException as error:
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()

    def wait_for(self, place):
        with self.changed:
            self.changed.wait_for(lambda: self.error or not self.order or self.order[0] == place)

    def next(self, place, seconds):
        with self.changed:
            self.seconds[place].append(seconds)
            self.order = self.order[1:]
            self.changed.notify_all()


class _TakesTurns(TrainerCallback):
    def __init__(self, clock, place):
        self.clock, self.place = clock, place

    def on_step_begin(self, args, state, control, **kwargs):
        self.clock.wait_for(self.place)
        _finish()
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        _finish()
        self.clock.next(self.place, time.perf_counter() - self.start)
        control.should_training_stop = self.clock.error is not None


def _finish():
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


class Noise(torch.utils.data.Dataset):
    """Images of noise, a few over and over again, of many classes."""

    def __init__(self, images, side, classes):
        self.images, self.classes = images, classes
        self.pixels = torch.randn(8, 3, side, side)

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index % 8], "labels": index % self.classes}
