"""Fixtures: servers that a whole test session shares, each started when it is first asked for; and their logs where a
test fails."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest

from .cluster import Cluster
from .sentinel import Sentinels
from .server import Server
from .servers import Servers

TOPOLOGIES = ("valkey", "redis7", "cluster", "sentinel")
"""What the fixture `redis_url` can be parametrised with."""

_SERVERS = pytest.StashKey[Servers]()
_READ = pytest.StashKey[dict[Path, int]]()
_SHOWN_BYTES = 20_000


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Servers]:
    """Makes servers; what a test does not end itself is ended with the session."""
    made = Servers(tmp_path_factory.mktemp("redis"))
    pytestconfig.stash[_SERVERS] = made
    yield made
    made.close()


@pytest.fixture(scope="session")
def valkey(servers: Servers) -> Server:
    """Valkey 9.1, shared: leave it as it was, and use a prefix of your own."""
    return servers.server("valkey").start()


@pytest.fixture(scope="session")
def redis7(servers: Servers) -> Server:
    """Debian's Redis 7.0, shared: leave it as it was, and use a prefix of your own."""
    return servers.server("redis7").start()


@pytest.fixture(scope="session")
def cluster(servers: Servers) -> Cluster:
    """Three masters of Valkey 9.1, shared: leave them as they were."""
    return servers.cluster().start()


@pytest.fixture(scope="session")
def sentinel(servers: Servers) -> Sentinels:
    """A primary, a replica and three sentinels of Valkey 9.1, shared: not for failovers."""
    return servers.sentinels().start()


@pytest.fixture(params=TOPOLOGIES)
def redis_url(request: pytest.FixtureRequest) -> str:
    """A place of one's own on each topology in turn; ``parametrize("redis_url", [...], indirect=True)`` for some."""
    shared: Server | Cluster | Sentinels = request.getfixturevalue(request.param)
    return own(shared.url())


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A place of one's own on the server behind a URL, as often as it is called."""
    return own


def own(url: str) -> str:
    """The same server, under a prefix that nobody uses."""
    parts = urlsplit(url)
    options = {**dict(parse_qsl(parts.query)), "prefix": f"t{uuid.uuid4().hex[:12]}"}
    return urlunsplit(parts._replace(query=urlencode(options)))


# --- logs of servers in reports of failures ---------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if (made := item.config.stash.get(_SERVERS, None)) is not None:
        item.stash[_READ] = {log: log.stat().st_size for _, log in made.logs()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    made = item.config.stash.get(_SERVERS, None)
    if report.failed and made is not None:
        read = item.stash.get(_READ, {})
        for name, log in made.logs():
            if said := log.read_bytes()[read.get(log, 0) :]:
                report.sections.append((f"log of {name}", said[-_SHOWN_BYTES:].decode(errors="replace")))
    return report
