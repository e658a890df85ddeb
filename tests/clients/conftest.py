"""The one suite, at every place."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import places


@pytest.fixture(params=places.PLACES)
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> places.Connected:
    return places.connected(places.url_of(request, tmp_path))


@pytest.fixture(params=places.PLACES)
def connected_sync(request: pytest.FixtureRequest, tmp_path: Path) -> places.ConnectedSync:
    return places.connected_sync(places.url_of(request, tmp_path))
