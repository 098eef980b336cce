"""How long a step takes, whatever the clock of the machine."""

import statistics

from clce_hf.comparison import run


def test_the_time_of_a_step_is_not_moved_by_its_start_up(monkeypatch):
    ticks = iter([10.0, 15.0, 16.0, 17.5, 18.5])
    monkeypatch.setattr(run.time, "perf_counter", lambda: next(ticks))
    clock = run.StepClock()
    clock.on_train_begin()
    for _ in range(4):
        clock.on_step_end()
    assert clock.seconds == [5.0, 1.0, 1.5, 1.0]
    assert statistics.median(clock.seconds) == 1.25
