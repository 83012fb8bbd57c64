"""The table of a worker's connections."""

import random

import pytest

from farm.worker.connection import Connection
from farm.worker.table import Table


def test_it_holds_what_a_dict_holds() -> None:
    table, model, chance = Table(), dict[int, Connection](), random.Random(7)
    for _ in range(5000):
        fd = chance.randrange(300)
        if fd in model and chance.random() < 0.8:
            del model[fd]
            del table[fd]
        else:
            model[fd] = table[fd] = Connection(fd, 0, 0.0)
        assert len(table) == len(model)
    assert list(table.items()) == sorted(model.items())
    for fd in (*range(-2, 302), 1 << 40):
        assert table.get(fd) is model.get(fd)
        assert (fd in table) == (fd in model)
        if fd not in model:
            with pytest.raises(KeyError):
                del table[fd]
    assert len(table.rows) <= 300
