"""The root of the errors that an operator can mend."""

from __future__ import annotations


class MendableError(Exception):
    """Something outside of the code is wrong: settings, files, ports, the store. No stack trace is shown with it.

    `problems`: what is wrong and what to do about it, a line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
