"""What a bench run can fail with."""


class BenchError(Exception):
    """The run can't go on; the text is one line for the user of the command."""
