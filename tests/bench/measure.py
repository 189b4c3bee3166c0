"""Compare two things in one run, so that what slows the machine down slows both."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One measured ratio and what it ought to be."""

    name: str
    value: float
    target: float
    at_most: bool = False  # False: the target is the least that will do
    detail: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def line(self) -> str:
        sign, verdict = "<=" if self.at_most else ">=", "met" if self.met else "MISSED"
        target = f"{sign} {self.target:g}"
        return f"{self.name:<44}{self.value:>9.3f}  target {target:<8}{verdict:<8}{self.detail}"


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds of one side of a comparison."""

    wall_s: float
    cpu_s: float  # user and system time of this process


def alternate(
    first: Callable[[], object], second: Callable[[], object], rounds: int = 5
) -> tuple[Cost, Cost]:
    """Run both once to warm up, then in turn ``rounds`` times."""
    first(), second()
    pairs = [(_cost(first), _cost(second)) for _ in range(rounds)]
    return _median([pair[0] for pair in pairs]), _median([pair[1] for pair in pairs])


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a module's function in a new interpreter, whose memory is all its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def peak_mib(process: int | str = "self") -> float:
    """Highest resident memory of a process; getrusage would count its parent's too."""
    return memory_mib("VmHWM", process)


def memory_mib(kind: str, process: int | str = "self") -> float:
    """A line of ``/proc/PID/status`` that is given in KiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def _cost(call: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), _cpu_s()
    call()
    return Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.wall_s for cost in costs),
        statistics.median(cost.cpu_s for cost in costs),
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
