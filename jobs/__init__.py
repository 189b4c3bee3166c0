"""Ray entry points and the command line: resources, fan-out, retries, exit codes."""
