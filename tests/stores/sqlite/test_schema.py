"""A file of another format is refused, in one clear line, and left as it is."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from loom.model.errors import LoomError, UsageError
from loom.model.run import Meta
from loom.stores.sqlite import SqliteStore
from loom.stores.sqlite.schema import VERSION

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", [2, VERSION - 1, VERSION + 1])
async def test_another_format_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        await store.runs.create(Meta(run="run", actor="actor"))
    with apsw.Connection(str(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(LoomError) as caught:
        async with SqliteStore(path):
            pass
    assert (version > VERSION) or isinstance(caught.value, UsageError)
    assert str(version) in str(caught.value)
    assert "\n" not in str(caught.value)
    with apsw.Connection(str(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION}")
    async with SqliteStore(path) as store:
        assert (await store.runs.get("run")).meta.run == "run"
