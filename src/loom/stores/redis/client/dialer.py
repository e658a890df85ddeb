"""Getting in: a wire to a server that will do. It may be Sentinels who know where it is; it knows who we are, is new
enough, and a primary."""

from __future__ import annotations

import asyncio
import contextlib
import inspect

from loom.model import limits
from loom.model.errors import LoomError, Unauthorized, Unavailable, UsageError

from .address import Address, Host, Login, host_name, is_socket
from .link import Pushed, ReplyError, Wire
from .replies import meaning_of

__all__ = ["Dialer"]

_OLDEST = {"redis": (7, 0), "valkey": (8, 0)}


class Dialer:
    """Makes wires to the servers of one address; whoever asks for one closes it."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def dial(self, host: Host | None, pushed: Pushed | None = None) -> Wire:
        """A wire to `host`; None: to the first of the address that will do, or the primary that its Sentinels name.

        Raises `Unavailable`, `Unauthorized`, and `UsageError` for what is too old or no Redis.
        """
        if host is not None:
            return await self._connect(host, pushed)
        last: LoomError = Unavailable(f"{self._address} does not answer")
        for candidate in self._address.hosts:
            try:
                primary = candidate if self._address.kind != "sentinel" else await self._primary(candidate)
                return await self._connect(primary, pushed, seed=True)
            except Unavailable as error:
                last = error
        raise last

    async def _primary(self, sentinel: Host) -> Host:
        """The primary of our service, as a Sentinel knows it."""
        name = f"the Sentinel at {sentinel[0]}:{sentinel[1]}"
        wire = await self._wire(sentinel, None, name)
        try:
            if self._address.sentinel_password:
                user = (self._address.sentinel_user,) if self._address.sentinel_user else ()
                await wire.ask("AUTH", *user, self._address.sentinel_password)
            found = await wire.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
        except ReplyError as error:
            raise meaning_of(error, name) from None
        finally:
            wire.close()
        if not found:
            raise Unavailable(f"{name} knows no {self._address.service!r}")
        return found[0].decode(), int(found[1])

    async def _connect(self, host: Host, pushed: Pushed | None, *, seed: bool = False) -> Wire:
        """A wire to a primary that is new enough, logged in; of a cluster's table any node knows."""
        name = f"Redis at {host_name(host)}"
        login = await self._login(name)
        wire = await self._wire(host, pushed, name)
        try:
            facts = await self.hello(wire, name, login)
            if facts.get("role") not in (None, "master") and not (seed and facts.get("mode") == "cluster"):
                raise Unavailable(f"{name} is a replica")
            if self._address.db:
                await wire.ask("SELECT", self._address.db)
        except ReplyError as error:
            wire.close()
            raise meaning_of(error, name) from None
        except BaseException:
            wire.close()
            raise
        return wire

    async def _wire(self, host: Host, pushed: Pushed | None, name: str) -> Wire:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.CONNECT_TIMEOUT):
                if is_socket(host):
                    _, wire = await loop.create_unix_connection(lambda: Wire(name, pushed), host[0])
                else:
                    _, wire = await loop.create_connection(lambda: Wire(name, pushed), *host, ssl=self._address.tls)
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{name} does not answer: {_reason(error)}") from None
        return wire

    async def _login(self, name: str) -> Login | None:
        """The user and password of one new connection. No error shows what `credentials` returned or raised."""
        if self._address.credentials is None:
            return (self._address.user or "default", self._address.password) if self._address.password else None
        try:
            async with asyncio.timeout(limits.CONNECT_TIMEOUT):
                login = self._address.credentials()
                if inspect.isawaitable(login):
                    login = await login
        except (Unauthorized, Unavailable):
            raise
        except Exception as error:  # user code: most often a service of tokens that is out of reach
            raise Unavailable(f"{name}: its credentials cannot be had: {type(error).__name__}") from None
        if not (isinstance(login, tuple) and len(login) == 2 and all(isinstance(part, str) for part in login)):
            raise UsageError("credentials: must return a user and a password, as a tuple of two strings")
        return login[0] or "default", login[1]

    async def hello(self, wire: Wire, name: str, login: Login | None = None) -> dict[str, str]:
        """Log in, unless that was done, and return the server's facts. Raises `UsageError` for one that is too old."""
        command = ("HELLO", "3", *(("AUTH", *login) if login else ()), "SETNAME", "loom")
        try:
            async with asyncio.timeout(limits.CONNECT_TIMEOUT):
                reply = await wire.ask(*command)
        except TimeoutError:
            raise Unavailable(f"{name} does not answer") from None
        except ReplyError as error:
            raise _unwelcome(error, name, login) from None
        if not isinstance(reply, dict):
            raise UsageError(f"{name} is no Redis that we know")
        facts = {key.decode(): value.decode() for key, value in reply.items() if isinstance(value, bytes)}
        _check_age(facts, name)
        return facts


def _unwelcome(error: ReplyError, name: str, login: Login | None) -> LoomError:
    text = str(error)
    if text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
        given = "the user or password is wrong" if login else "it wants a user and password"
        return Unauthorized(f"{name} does not let us in: {given}")
    return meaning_of(error, name)


def _check_age(facts: dict[str, str], name: str) -> None:
    server, version = facts.get("server", "redis"), facts.get("version", "")
    oldest = _OLDEST.get(server, (7, 0))
    with contextlib.suppress(ValueError):
        if tuple(int(part) for part in version.split(".")[:2]) < oldest:
            raise UsageError(f"{name} is {server.title()} {version}: Redis 7.0 or newer, or Valkey 8, is needed")


def _reason(error: BaseException) -> str:
    return "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
