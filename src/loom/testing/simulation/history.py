"""What happened in a simulation, in order: what its checker looks at, and what its digest is of."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from loom.model.chunk import Page
from loom.model.errors import Fenced
from loom.model.run import Claim

__all__ = ["Acked", "Call", "Fault", "Happening", "Logged", "Seen", "digest_of"]


class Call(msgspec.Struct, frozen=True):
    """A call of a process that the store has answered; whether the answer arrived is another matter.

    It took effect between `began` and `at`, in virtual seconds; `first` and `last` are the number of happenings before
    these moments.
    """

    at: float
    began: float
    first: int
    last: int
    step: str
    process: str
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    result: Any
    error: BaseException | None

    @property
    def claim(self) -> Claim | None:
        """The claim that it gave, or was about."""
        about = self.result if self.name == "claim" else self.args[0] if self.args else None
        return about if isinstance(about, Claim) else None

    @property
    def each(self) -> tuple[Call, ...]:
        """What was asked for many claims together, as a call for each."""
        if self.name != "renew_all":
            return (self,)
        held = self.result or [False] * len(self.args[0])
        return tuple(
            msgspec.structs.replace(
                self, name="renew", args=(claim,), result=None, error=self.error or (None if kept else Fenced("lost"))
            )
            for claim, kept in zip(self.args[0], held, strict=True)
        )

    @property
    def run(self) -> str:
        """The run, or the log, that it is about; "" if none."""
        about = self.claim or (self.args[0] if self.args else "")
        return str(getattr(about, "run", about))


class Fault(msgspec.Struct, frozen=True):
    """Something befell a process, as the seed wanted it, at the named step."""

    at: float
    step: str
    kind: str
    process: str

    def __str__(self) -> str:
        step = self.step if self.step.startswith(self.process) else f"{self.process} ({self.step})"
        return f"{self.at:10.3f} s  {self.kind:12}  {step}"


class Seen(msgspec.Struct, frozen=True):
    """A viewer was given a page."""

    at: float
    viewer: str
    run: str
    page: Page


class Acked(msgspec.Struct, frozen=True):
    """A client was told that this is done."""

    at: float
    what: str
    run: str


class Logged(msgspec.Struct, frozen=True):
    """Something that must not happen was told by who noticed it."""

    at: float
    text: str


Happening = Call | Fault | Seen | Acked | Logged


def digest_of(happenings: list[Happening]) -> str:
    """The same for the same history only, in any process."""
    encode = msgspec.json.Encoder(enc_hook=repr).encode
    digest = hashlib.sha256()
    for happening in happenings:
        digest.update(encode(happening) + b"\n")
    return digest.hexdigest()
