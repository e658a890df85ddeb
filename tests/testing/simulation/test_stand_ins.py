"""For as long as a simulation lasts, Loom's clocks and ids are the seed's; then all is as before."""

from __future__ import annotations

import gc
import random
import time
import uuid

from loom.engine.follow import client
from loom.engine.run import worker
from loom.testing.simulation.stand_ins import EPOCH, stand_ins


def test_clocks_and_ids_are_the_seeds_and_everything_is_put_back() -> None:
    modules = vars(worker)["time"], vars(client)["uuid"]
    random.seed(5)
    expected = random.random()
    random.seed(5)
    drawn = []
    for _ in range(2):
        with stand_ins(lambda: 7.0, 1):
            assert vars(worker)["time"].monotonic() == 7
            assert vars(client)["time"].time() == EPOCH + 7
            assert time.monotonic() != 7
            assert not gc.isenabled()
            drawn.append((client.new_id(), random.random()))
            assert uuid.uuid4() != uuid.uuid4()
    assert drawn[0] == drawn[1]
    assert modules == (time, uuid) == (vars(worker)["time"], vars(client)["uuid"])
    assert gc.isenabled()
    assert random.random() == expected


def test_another_seed_has_other_ids() -> None:
    drawn = []
    for seed in (1, 2):
        with stand_ins(lambda: 7.0, seed):
            drawn.append(client.new_id())
    assert drawn[0] != drawn[1]
