"""Runs the command line in this process and keeps what it said."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from jobs.cli import app


@dataclass
class Answer:
    code: int
    out: str
    err: str
    seconds: float

    def refusal(self) -> str:
        """The one line of a command that an operator must act on."""
        assert (self.code, self.out) == (1, "")
        assert self.err.startswith("nightshift: ")
        assert self.err.count("\n") == 1
        assert self.seconds < 25
        return self.err


Run = Callable[..., Answer]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "WARNING")  # what the command would set for good
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    def run(*arguments: Any) -> Answer:
        monkeypatch.setattr(sys, "argv", ["nightshift", *map(str, arguments)])
        capsys.readouterr()
        started = time.monotonic()
        with pytest.raises(SystemExit, match=r"\d") as ended:
            app.main()
        code = ended.value.code
        assert isinstance(code, int)
        return Answer(code, *capsys.readouterr(), time.monotonic() - started)

    return run
