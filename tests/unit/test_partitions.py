"""Which partition a key is in, and who owns it on one host."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from router.common.partitions import PARTITIONS, fixed_owners, partition


def test_a_key_stays_in_its_partition() -> None:
    # Written down, because stores are cut by it: another number would lose what is stored.
    assert partition(bytes(16)) == 341
    assert partition(bytes(range(16))) == 136
    assert partition(b"\xff" * 16) == 26


def test_uuids_are_spread_evenly_in_spite_of_their_constant_bits() -> None:
    keys = (UUID(int=number, version=4).bytes for number in range(PARTITIONS * 200))
    found = Counter(map(partition, keys))

    assert len(found) == PARTITIONS
    assert max(found.values()) < 2 * 200


@pytest.mark.parametrize("routers", (1, 2, 3, 7, 16, 511, 512))
def test_routers_of_a_host_have_as_many_partitions_each(routers: int) -> None:
    owned = Counter(fixed_owners(routers))

    assert set(owned) == set(range(routers))
    assert max(owned.values()) - min(owned.values()) <= 1


@pytest.mark.parametrize("routers", (0, -1, 513))
def test_a_number_of_routers_that_cannot_be_is_refused(routers: int) -> None:
    with pytest.raises(ValueError, match="1 to 512 routers"):
        fixed_owners(routers)
