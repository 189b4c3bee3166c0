"""The root of every error that a user of Nightshift can act on."""


class NightshiftError(Exception):
    """What happened, what was needed and what to do, in one message.

    Each module defines the errors it raises as subclasses, beside the code that raises them.
    The command line catches this class only and prints one line.
    """
