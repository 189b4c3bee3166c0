"""Tasks of Ray, a few at a time, each taken as it ends."""

import time
from functools import partial

import pytest
import ray

from jobs.cluster.as_completed import as_completed
from jobs.cluster.join import cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@ray.remote(num_cpus=0)
def after(seconds: float) -> float:
    time.sleep(seconds)
    if seconds < 0.01:
        raise ValueError("too fast")
    return seconds


def test_tasks_are_taken_as_they_end_whether_well_or_not_and_few_at_a_time() -> None:
    started: list[str] = []
    ended: list[str] = []
    looks: list[int] = []

    def start(key: str, seconds: float) -> "ray.ObjectRef[float]":
        started.append(key)
        assert len(started) - len(ended) <= 2
        return after.remote(seconds)

    work = {"slow": 8.0, "fast": 0.0, "a": 0.02, "b": 0.03}
    with cluster():
        ray.get(after.remote(0.1))  # processes are there
        tasks = [(key, partial(start, key, seconds)) for key, seconds in work.items()]
        for key, reference in as_completed(tasks, in_flight=2, watch=lambda: looks.append(1)):
            ended.append(key)
            if key == "fast":
                with pytest.raises(ValueError, match="too fast"):
                    ray.get(reference)
            else:
                assert ray.get(reference) == work[key]
        assert list(as_completed([])) == []
    assert started == ["slow", "fast", "a", "b"]
    assert ended == ["fast", "a", "b", "slow"]
    assert len(looks) >= 4
