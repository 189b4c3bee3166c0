"""``python -m jobs`` is the ``nightshift`` command."""

from jobs.cli.app import main

if __name__ == "__main__":
    main()
