"""From a `Start` to a run's `Meta`: the one place where options get their declared and default values, and
where an input that comes by a name is read."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec.structs import replace

from loom.model.errors import InvalidInput
from loom.model.names import PRIVATE, check_id
from loom.model.numbers import is_duration
from loom.model.options import DECLARABLE, DEFAULTS, Options
from loom.model.run import Meta, Start

from .inputs import canonical_input
from .producer import Producer

__all__ = ["child_of", "settled", "started_again"]


def settled(start: Start, producer: Producer[..., Any] | None, parent: Meta | None = None) -> Meta:
    """The record of a run to start. `producer`: the actor's, where it is known; `parent`: the run that starts it.

    Raises `InvalidInput` naming the field, `LimitExceeded` for an input that is too large, `RemoteProtocolError` for
    one that is no JSON.
    """
    meta = _meta(start, producer, _input(start, producer))
    return meta if parent is None else child_of(parent, meta)


def child_of(parent: Meta, meta: Meta) -> Meta:
    """The run of `meta`, started by `parent`. Of a run that a command drives, which serves its own queue alone, the
    children go there, too."""
    private = parent.queue.startswith(PRIVATE) and not meta.published
    queue = parent.queue if private else meta.queue
    return replace(meta, parent=parent.run, root=parent.root or parent.run, queue=queue)


def _meta(start: Start, producer: Producer[..., Any] | None, input: msgspec.Raw) -> Meta:
    options = start.options if producer is None else start.options.over(producer.options)
    given = options.of_run()
    _check_owner_lease(start.owner_lease)
    now = time.time()
    delay = options.given.get("delay")
    return Meta(
        run=check_id(start.run),
        actor=check_id(start.actor, "actor"),
        input=input,
        created=now,
        owner_lease=start.owner_lease,
        not_before=now + delay if delay else None,
        assumed=() if producer is not None else tuple(name for name in DECLARABLE if name not in given),
        **given,
    )


def _input(start: Start, producer: Producer[..., Any] | None) -> msgspec.Raw:
    """In the one form in which the same start always has the same bytes, checked where the producer is known."""
    if producer is None:
        return start.input if start.canonical else canonical_input(start.input)
    if producer is start.producer:
        return start.input
    return producer.inputs.settled(start.input, canonical=start.canonical)


def _check_owner_lease(value: float | None) -> None:
    if value is not None and not is_duration(value):
        raise InvalidInput(
            f"owner_lease: must be seconds, more than 0, not {value!r}", details={"field": "owner_lease"}
        )


def started_again(old: Meta, run: str, producer: Producer[..., Any] | None) -> Meta:
    """A new run of the same: what was given stays, what was assumed is as it is declared now, where that is known. The
    input was checked then. A command's own queue went with it."""
    dropped = {*old.assumed, *(("queue",) if old.queue.startswith(PRIVATE) else ())}
    options = Options.of({name: getattr(old, name) for name in DEFAULTS if name not in dropped})
    again = _meta(Start(run=run, actor=old.actor, options=options), producer, old.input)
    return replace(again, retry_of=old.run, parent=old.parent, root=old.root)
