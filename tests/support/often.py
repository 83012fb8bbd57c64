"""How many examples and seeds a test that draws lots goes through: some in `make test`, as many more as there is time
for with `make test-unit TEST_TIMES=20`."""

import os
from typing import Final

_TIMES: Final = int(os.environ.get("TEST_TIMES", "1"))


def often(usual: int) -> int:
    """As many times as many."""
    return usual * _TIMES
