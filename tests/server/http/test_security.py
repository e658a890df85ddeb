"""Who may talk to the server: Host, Origin, other sites' pages, keys, CORS; on every route and method."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest

from loom.app import App
from loom.model.errors import UsageError
from loom.server.http.security import ANY_HOST, LOOPBACK_HOSTS, Guard, hosts_for, is_loopback
from tests.server.harness import PATIENCE, Reply, Rig, ask_raw, connection, read_head, rig

pytestmark = pytest.mark.anyio

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


def every_request(r: Rig) -> list[tuple[str, str]]:
    """Every route with every method, and places where there is nothing."""
    paths = {re.sub(r"\{.*?\}", "r", operation.path) for operation in r.app.operations}
    return [(method, path) for path in sorted(paths | {"/", "/nothing", "/ws"}) for method in METHODS]


async def status_and_code(r: Rig, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    reply = await r.ask(method, path, headers=headers)
    return reply.status, "" if method == "HEAD" else code_of(reply)


def code_of(reply: Reply) -> str:
    """The error's code: OpenAI's routes have OpenAI's form and word."""
    code: str = reply.json["error"]["code"]
    return {"invalid_api_key": "unauthorized"}.get(code, code)


# --- Host ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:1", "LOCALHOST:65535", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8700"],
)
async def test_this_machines_own_names_are_allowed(host: str) -> None:
    async with rig() as r:
        assert (await r.ask("GET", "/runs", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8700", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.",
        "10.0.0.1", "0.0.0.0", "[::]", "127.0.0.2", "xn--localhost", "0x7f000001", "2130706433", "127.1",
        "[::ffff:127.0.0.1]",
    ],
)  # fmt: skip
async def test_a_foreign_host_is_refused_on_every_route_and_method(host: str) -> None:
    """A page whose name now resolves to this machine (DNS rebinding) sends its own name."""
    async with rig(keys=["k"]) as r:
        for method, path in every_request(r):
            got = await status_and_code(r, method, path, {"Host": host, "Authorization": "Bearer k"})
            assert got in ((403, "forbidden"), (403, "")), (method, path)


@pytest.mark.parametrize(
    "lines",
    [
        b"", b"Host:\r\n", b"Host: localhost\r\nHost: localhost\r\n", b"Host: a@localhost\r\n",
        b"Host: localhost:x\r\n",
        b"Host: localhost:123456\r\n", b"Host: local host\r\n", b"Host: localhost/\r\n", b"Host: [::1\r\n",
        b"Host: ::1\r\n",
        b"Host: \xff\xfe\r\n", b"Host: localhost,evil.example\r\n", b"Host: http://localhost\r\n",
        b"Host: localhost:\r\n",
    ],
)  # fmt: skip
async def test_a_malformed_host_is_400(lines: bytes) -> None:
    async with rig() as r:
        reply = await ask_raw(r.address, b"GET /runs HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
        assert (reply.status, reply.error["code"]) == (400, "protocol_error")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/runs", b"evil.example", 200),
        (b"http://localhost:1/runs?limit=1", b"localhost", 200),
        (b"HTTPS://[::1]/runs", b"localhost", 200),
        (b"http://LOCALHOST/runs", b"localhost", 200),
        (b"http://evil.example/runs", b"localhost", 403),
        (b"http://evil.example?/runs", b"localhost", 403),
        (b"http://evil.example", b"localhost", 403),
        (b"http://localhost.evil.example:80/runs", b"localhost", 403),
        (b"http://localhost@evil.example/runs", b"localhost", 400),
        (b"http://evil.example@localhost/runs", b"localhost", 400),
        (b"http:///runs", b"localhost", 400),
        (b"http://localhost/runs", b"localhost\r\nHost: localhost", 400),
        (b"ftp://evil.example/runs", b"localhost", 403),
    ],
)
async def test_the_host_of_an_absolute_target_counts(target: bytes, host: bytes, status: int) -> None:
    """And Host does not (RFC 9112, section 3.2.2)."""
    async with rig() as r:
        reply = await ask_raw(r.address, b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host))
        assert reply.status == status


async def test_an_absolute_target_needs_a_host_header_too() -> None:
    """RFC 9112, section 3.2."""
    async with rig() as r:
        assert (
            await ask_raw(r.address, b"GET http://localhost/runs HTTP/1.1\r\nConnection: close\r\n\r\n")
        ).status == 400


@pytest.mark.parametrize("target", [b"http://localhost", b"http://localhost?"])
async def test_an_absolute_target_without_a_path_is_the_root(target: bytes) -> None:
    async with rig() as r:
        replies = [
            await ask_raw(r.address, b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % where)
            for where in (target, b"/")
        ]
        assert replies[0].status == replies[1].status
        assert replies[0].body == replies[1].body


@pytest.mark.parametrize("target", [b"//evil.example/runs", b"/http://evil.example/runs"])
async def test_a_path_that_looks_like_a_host_is_a_path(target: bytes) -> None:
    async with rig() as r:
        reply = await ask_raw(r.address, b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
        assert (reply.status, reply.error["code"]) == (404, "route_not_found")


async def test_configured_hosts() -> None:
    async with rig(allowed_hosts=["Loom.Example.com", "other.example:9000"]) as r:
        for host, status in (
            ("loom.example.com", 200),
            ("loom.example.com:443", 200),
            ("other.example:9000", 200),
            ("other.example", 403),
            ("other.example:9001", 403),
            ("localhost", 403),
        ):
            assert (await r.ask("GET", "/runs", headers={"Host": host})).status == status, host


async def test_any_host() -> None:
    async with rig(allowed_hosts=[ANY_HOST]) as r:
        assert (await r.ask("GET", "/runs", headers={"Host": "evil.example"})).status == 200
        assert (await r.ask("GET", "/runs", headers={"Host": "a b"})).status == 400


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", LOOPBACK_HOSTS),
        ("localhost", LOOPBACK_HOSTS),
        ("::1", LOOPBACK_HOSTS),
        ("127.0.0.2", (*LOOPBACK_HOSTS, "127.0.0.2")),
        ("192.168.1.5", (*LOOPBACK_HOSTS, "192.168.1.5")),
        ("fe80::1", (*LOOPBACK_HOSTS, "[fe80::1]")),
        ("Box.local", (*LOOPBACK_HOSTS, "box.local")),
        ("0.0.0.0", (ANY_HOST,)),
        ("::", (ANY_HOST,)),
    ],
)
def test_hosts_for_an_address_to_listen_on(host: str, expected: tuple[str, ...]) -> None:
    assert hosts_for(host) == expected
    Guard(allowed_hosts=hosts_for(host))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("localhost.example", False)],
)  # fmt: skip
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# --- Origin and other sites' pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://localhost.evil.example", "null", "", "http://localhost:3000", "localhost", "http://",
     "http://127.0.0.1", "http://localhost:8700@evil.example", "file://"],
)  # fmt: skip
async def test_a_foreign_origin_is_refused_on_every_route_and_method(origin: str) -> None:
    async with rig(keys=["k"]) as r:
        headers = {"Origin": origin, "Host": "localhost:8700", "Authorization": "Bearer k"}
        for method, path in every_request(r):
            got = await status_and_code(r, method, path, headers)
            assert got in ((403, "forbidden"), (403, "")), (method, path)


async def test_the_servers_own_origin_is_allowed() -> None:
    async with rig() as r:
        for origin, host in (
            ("http://localhost:8700", "localhost:8700"),
            ("https://localhost", "localhost"),
            ("http://[::1]:8700", "[::1]:8700"),
        ):
            reply = await r.ask("GET", "/runs", headers={"Origin": origin, "Host": host})
            assert reply.status == 200
            assert reply.header("access-control-allow-origin") is None


async def test_two_origins_are_malformed() -> None:
    async with rig() as r:
        raw = b"GET /runs HTTP/1.1\r\nHost: localhost\r\nOrigin: a\r\nOrigin: b\r\nConnection: close\r\n\r\n"
        assert (await ask_raw(r.address, raw)).status == 400


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_sites_page_cannot_start_a_run_by_an_image_or_a_link(site: str) -> None:
    """Browsers send neither an Origin nor a question before these; they do send where the page is from."""
    async with rig() as r:
        for mode in ("no-cors", "navigate"):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
            reply = await r.ask("GET", "/actors/a/stream?input=1", headers=headers)
            assert (reply.status, reply.error["code"]) == (403, "forbidden")
        assert (await r.ask("GET", "/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"})).status == 200
        assert (await r.ask("GET", "/runs")).json == {"runs": []}


@pytest.mark.parametrize("site", ["none", "same-origin"])
async def test_the_user_and_our_own_pages_may(site: str) -> None:
    async with rig() as r:
        assert (await r.ask("GET", "/runs", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"})).status == 200


# --- CORS ------------------------------------------------------------------------------------------------------------

PAGE = "https://app.example.com"


async def test_a_configured_origin_may_read_answers() -> None:
    async with rig(allowed_origins=[PAGE], keys=["k"]) as r:
        for headers, status in (
            ({"Authorization": "Bearer k"}, 200),
            ({"Authorization": "Bearer wrong"}, 401),
            ({}, 401),
        ):
            reply = await r.ask("GET", "/runs", headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site", **headers})
            assert reply.status == status
            assert reply.header("access-control-allow-origin") == PAGE
            assert reply.header("vary") == "origin"
            assert reply.header("access-control-allow-credentials") is None


async def test_a_configured_origin_may_follow() -> None:
    async with rig(allowed_origins=[PAGE]) as r:
        await r.begin()
        async with r.viewer("/runs/r/events", headers={"Origin": PAGE}) as viewer:
            assert viewer.reply.header("access-control-allow-origin") == PAGE
            assert (await viewer.event()).type == "start"


async def test_preflights() -> None:
    async with rig(allowed_origins=[PAGE], keys=["k"]) as r:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        reply = await r.ask("OPTIONS", "/runs", headers={"Origin": PAGE, **asked})
        assert (reply.status, reply.body) == (204, b"")
        assert reply.header("access-control-allow-origin") == PAGE
        assert "POST" in (reply.header("access-control-allow-methods") or "")
        for name in ("authorization", "content-type", "idempotency-key", "last-event-id"):
            assert name in (reply.header("access-control-allow-headers") or "")
        for origin in ("https://app.example.com:8443", "http://app.example.com", "https://APP.example.com"):
            refused = await r.ask("OPTIONS", "/runs", headers={"Origin": origin, **asked})
            assert refused.status == 403
            assert refused.header("access-control-allow-origin") is None


async def test_without_configuration_there_is_no_cors() -> None:
    async with rig() as r:
        asked = {"Origin": "http://localhost:8700", "Host": "localhost:8700", "Access-Control-Request-Method": "POST"}
        reply = await r.ask("OPTIONS", "/runs", headers=asked)
        assert reply.status == 405
        assert not [name for name, _ in reply.headers if name.startswith("access-control")]


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer right2", "Bearer righ", "Basic right", "right",
     "Bearer right right", "Bearer \xff", "bearer RIGHT"],
)  # fmt: skip
async def test_without_the_key_every_route_and_method_is_401(authorization: str | None) -> None:
    async with rig(keys=["right", "other"]) as r:
        public = {operation.path for operation in r.app.operations if operation.public}
        assert public == {"/healthz", "/readyz"}
        for method, path in every_request(r):
            headers = {} if authorization is None else {"Authorization": authorization}
            reply = await r.ask(method, path, headers=headers)
            if path in public:
                assert reply.status in (200, 405)
                continue
            assert (reply.status, reply.header("www-authenticate")) == (401, 'Bearer realm="loom"'), (method, path)
            assert method == "HEAD" or code_of(reply) == "unauthorized"


@pytest.mark.parametrize("authorization", ["Bearer right", "bearer right", "BEARER  other"])
async def test_any_of_the_keys_opens(authorization: str) -> None:
    async with rig(keys=["right", "other"]) as r:
        assert (await r.ask("GET", "/runs", headers={"Authorization": authorization})).status == 200
        started = await r.ask("POST", "/runs", {"actor": "a"}, headers={"Authorization": authorization})
        assert started.status == 201


async def test_two_authorizations_are_malformed() -> None:
    async with rig(keys=["k"]) as r:
        raw = b"GET /runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + b"Authorization: Bearer k\r\n" * 2
        assert (await ask_raw(r.address, raw + b"\r\n")).status == 400


STARTS = [
    ("/runs", {"actor": "count", "input": 1}),
    ("/runs/ended/retry", {}),
    ("/actors/count/stream", {"input": 1}),
    ("/v1/chat/completions", {"model": "chatty", "messages": [{"role": "user", "content": "hi"}]}),
]


def starting() -> App:
    app = App()

    @app.actor("count")
    async def count(n: int) -> int:
        return n

    @app.actor("chatty")
    async def chatty(prompt: str) -> str:
        return prompt

    return app


@pytest.mark.parametrize(("path", "body"), STARTS)
async def test_an_idempotency_key_is_the_callers_own(path: str, body: dict[str, Any]) -> None:
    """Two that choose the same name get neither each other's run, nor a word of there being one."""

    async def ask(key: str, name: str) -> tuple[int, str | None]:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": name}
        reply = await r.ask("POST", path, body, headers=headers)
        return reply.status, reply.header("location")

    async with rig(starting().registry, worker=True, keys=["one", "other"]) as r:
        await r.begin("ended", "count", input=msgspec.Raw(b'{"n":1}'))
        await r.end("ended")
        first = await ask("one", "order-1")
        assert first[0] in (200, 201)
        assert await ask("one", '"order-1"') == first
        second = await ask("other", "order-1")
        assert (second[0], second[1] != first[1]) == (first[0], True)
        assert await ask("one", "order-2") not in (first, second)


# --- blanks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [b" ", b"\t", b" \t  "])
async def test_blanks_around_a_header_are_no_part_of_it(after: bytes) -> None:
    """RFC 9110, section 5.5: of each that is read."""
    lines = [
        b"Host: \t localhost:8700",
        b"Origin: http://localhost:8700",
        b"Sec-Fetch-Site: same-origin",
        b"Authorization: Bearer k",
        b"Content-Type: application/json",
        b"Idempotency-Key: 1",
        b"Accept: text/event-stream",
        b"Expect: 100-continue",
        b"Connection: close",
        b"Content-Length: 14",
    ]
    async with rig(keys=["k"]) as r:
        raw = b"POST /runs HTTP/1.1\r\n" + b"".join(line + after + b"\r\n" for line in lines) + b"\r\n"
        async with connection(r.address) as (reader, writer):
            writer.write(raw)
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b'{"actor": "a"}')
            reply = await asyncio.wait_for(read_head(reader), PATIENCE)
        plain = {"Authorization": "Bearer k", "Idempotency-Key": "1"}
        assert reply.status == 201
        assert reply.header("location") == (await r.ask("POST", "/runs", {"actor": "a"}, headers=plain)).header(
            "location"
        )
        await r.begin()
        last = await r.end()
        raw = b"GET /runs/r/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nConnection: close\r\n"
        assert (
            await ask_raw(r.address, raw + b"Last-Event-ID: %b%b\r\n\r\n" % (str(last).encode(), after))
        ).status == 204


async def test_blanks_on_a_server_that_keeps_them() -> None:
    """In another app's server the guard sees what that server made of the line."""
    guard = Guard(keys=["k"], allowed_origins=["https://app.example.com"])
    headers = [(b"host", b"localhost "), (b"origin", b"https://app.example.com\t"), (b"authorization", b" Bearer k ")]
    admission = guard.admit({"type": "http", "method": "GET", "headers": headers}, "/runs")
    assert admission.refusal is None
    assert admission.headers[0] == (b"access-control-allow-origin", b"https://app.example.com")


@pytest.mark.parametrize(
    "options",
    [
        {"keys": [""]},
        {"keys": ["a b"]},
        {"keys": ["schlüssel"]},
        {"allowed_hosts": ["http://x"]},
        {"allowed_hosts": [""]},
        {"allowed_hosts": ["a b"]},
        {"allowed_origins": ["app.example.com"]},
        {"allowed_origins": ["https://app.example.com/"]},
        {"allowed_origins": ["https://App.example.com"]},
        {"allowed_origins": ["*"]},
        {"allowed_origins": ["null"]},
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Guard(**options)
