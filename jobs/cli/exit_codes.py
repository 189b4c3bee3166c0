"""What a command's exit code says."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Scripts and schedulers rely on these numbers."""

    DONE = 0
    MEND = 1  # nothing done, or no good: an operator must mend what one line on stderr names
    USAGE = 2  # the command was written wrongly; typer's own
    PARTLY = 3  # done, but some categories or images failed; they are listed
