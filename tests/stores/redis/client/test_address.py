"""What a Redis URL says."""

from __future__ import annotations

import pytest

from loom.connect import open_store
from loom.model.errors import UsageError
from loom.model.run import Meta
from loom.stores.redis import Address, parse_url
from loom.stores.redis.keys import Keys
from loom.testing.author import Author
from tests.servers.fixtures import own
from tests.servers.server import Server
from tests.servers.servers import Servers

URLS: dict[str, Address] = {
    "redis://": Address(hosts=(("localhost", 6379),)),
    "redis://h": Address(hosts=(("h", 6379),)),
    "valkey://h:1/3": Address(hosts=(("h", 1),), db=3),
    "redis://[::1]:7000": Address(hosts=(("::1", 7000),)),
    "redis://[::1]": Address(hosts=(("::1", 6379),)),
    "redis://:p%40ss@h": Address(hosts=(("h", 6379),), password="p@ss"),
    "redis://al:s:e:c@h": Address(hosts=(("h", 6379),), user="al", password="s:e:c"),
    "redis://h?prefix=shop&durability=disk": Address(hosts=(("h", 6379),), prefix="shop", durability="disk"),
    "redis://h/?durability=replica&replicas=2": Address(hosts=(("h", 6379),), durability="replica", replicas=2),
    "redis://h?retention=2h": Address(hosts=(("h", 6379),), retention=7200.0),
    "redis+sentinel://a,b:1/main": Address(hosts=(("a", 26379), ("b", 1)), kind="sentinel", service="main"),
    "redis+sentinel://u:p@a/main/2?sentinel_password=q": Address(
        hosts=(("a", 26379),), kind="sentinel", service="main", db=2, user="u", password="p", sentinel_password="q"
    ),
    "redis+sentinel://a/main?sentinel_user=s&sentinel_password=q": Address(
        hosts=(("a", 26379),), kind="sentinel", service="main", sentinel_user="s", sentinel_password="q"
    ),
    "unix:///run/redis.sock": Address(hosts=(("/run/redis.sock", 0),)),
    "unix:///run/r%20s.sock?db=2&prefix=shop": Address(hosts=(("/run/r s.sock", 0),), db=2, prefix="shop"),
    "redis+unix://al:p%40ss@/r.sock": Address(hosts=(("/r.sock", 0),), user="al", password="p@ss"),
    "valkey+unix:///r.sock?username=al&password=q": Address(hosts=(("/r.sock", 0),), user="al", password="q"),
    "valkey+cluster://a,b": Address(hosts=(("a", 6379), ("b", 6379)), kind="cluster"),
}

FAULTS = {
    "postgres://h": "is no Redis URL",
    "redis+ring://h": "is no Redis URL",
    "redis://h:x": "port",
    "redis://h:0": "port",
    "redis://h:65536": "port",
    "redis://h/x": "database's number",
    "redis+sentinel://h": "names the service",
    "redis+sentinel://h/": "names the service",
    "redis+cluster://h/1": "one database",
    "redis://h?db=1": "no option of that name",
    "redis+sentinel://h/s?sentinel_user=u": "belongs to a sentinel_password",
    "unix://run/redis.sock": "three slashes",
    "unix://": "three slashes",
    "unix:///r.sock?db=x": "database's number",
    "unix:///r.sock?dv=1": "no option of that name",
    "unix:///r@q.sock": "escaped",
    "redis://h?prefx=a": "no option 'prefx'",
    "redis://h?prefix=": "prefix",
    "redis://h?prefix={a}": "prefix",
    "redis://h?durability=forever": "durability",
    "redis://h?durability=replica&replicas=0": "replicas",
    "redis://h?retention=never": "retention",
    "rediss://h?ca=/nowhere/ca.pem": "/nowhere/ca.pem",
    "rediss://h?key=k": "belongs to a cert",
}


@pytest.mark.parametrize("url", URLS)
def test_what_a_url_says(url: str) -> None:
    assert parse_url(url) == URLS[url]


@pytest.mark.parametrize("url", FAULTS)
def test_what_is_wrong_is_named(url: str) -> None:
    with pytest.raises(UsageError, match=FAULTS[url]):
        parse_url(url)


@pytest.mark.parametrize("url", [url.replace("://", "://someone:hush@", 1) for url in FAULTS])
def test_no_error_tells_a_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url)
    assert "hush" not in str(caught.value)


def test_no_address_shows_a_password() -> None:
    address = parse_url("redis+sentinel://someone:hush@h/main?sentinel_password=hush")
    assert "hush" not in repr(address)
    assert "someone" not in str(address)


def test_tls_knows_the_files_that_it_is_given(servers: Servers) -> None:
    certificates = servers.certificates()
    assert parse_url("redis://h").tls is None
    assert parse_url(f"rediss://h?ca={certificates.ca}").tls is not None
    files = f"ca={certificates.ca}&cert={certificates.client_cert}&key={certificates.client_key}"
    assert parse_url(f"valkeys://h?{files}").tls is not None


@pytest.mark.anyio
async def test_it_says_how_long_runs_are_kept(valkey: Server) -> None:
    url = f"{own(valkey.url())}&retention=2m"
    async with open_store(url) as store:
        await store.runs.create(Meta(run="run", actor="actor"))
        await (await Author.take(store.logs, "run")).say("start", "complete")
        await store.queue.put(Meta(run="run", actor="actor"))
        claim = await store.queue.claim(["default"], "w1", lease=10.0, wait=0.0)
        assert claim is not None
        await store.queue.ack(claim)
        assert 110 <= int(valkey.ask("TTL", Keys(parse_url(url).prefix).of_log("run")[0])) <= 120
