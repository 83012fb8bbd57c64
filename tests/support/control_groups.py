"""Whether control groups can be made on this machine, for the tests that need real ones."""

import pytest

from bench.machine.cgroups import CgroupError, Group

MIB = 1 << 20


def why_no_group() -> str:
    """Why no group can be made here; "" if it can."""
    try:
        with Group("probe", 64 * MIB, 0.5) as group:
            return "; ".join(group.notes)
    except CgroupError as error:
        return str(error)


NO_GROUP = why_no_group()
needs_groups = pytest.mark.skipif(bool(NO_GROUP), reason=NO_GROUP)
