"""Producers by name: what they are called with, what they yield, how they are retried.

A producer is any of: async generator function, coroutine function, generator function, plain function, or a class
with `stream` and/or `execute`. The parameter annotated `Context` is found by its annotation and is no input.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from math import inf
from typing import Any, Generic, Literal, ParamSpec, TypeVar

import msgspec

from loom.model import limits
from loom.model.chunk import Chunk, Progress, Result
from loom.model.errors import InvalidInput, LoomError, RemoteProtocolError, UnknownProducer, UsageError
from loom.model.keep import Keep
from loom.model.run import ActorInfo, check_id
from loom.wire.json import canonical, check_depth, check_size, convert, decode, sound

from .context import Context

__all__ = ["Bound", "Kind", "Options", "Producer", "Registry", "Retry", "encode_input", "make_producer"]

P = ParamSpec("P")
Out = TypeVar("Out", covariant=True)

Kind = Literal["async-generator", "coroutine", "generator", "function"]
"""How a producer is driven; the last two in threads."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What follows when an attempt fails or its worker is lost.

    `attempts` and `on` bound the producer's own errors: at most `attempts` tries altogether, another one only after
    an exception of a type in `on`. Lost workers are bounded by `max_crashes`. `mode`: "restart" takes back what was
    said, "continue" keeps it, and the producer finds it in `ctx.previous`. `backoff`: first and longest pause (s).
    """

    attempts: int = 5
    on: tuple[type[Exception], ...] = (Exception,)
    mode: Literal["restart", "continue"] = "restart"
    backoff: tuple[float, float] = limits.RETRY_BACKOFF

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise UsageError(f"Retry(attempts={self.attempts!r}): a whole number, at least 1")
        if not isinstance(self.on, tuple) or not all(inspect.isclass(kind) for kind in self.on):
            raise UsageError(f"Retry(on={self.on!r}): a tuple of exception types, as (IOError,)")
        if self.mode not in ("restart", "continue"):
            raise UsageError(f"Retry(mode={self.mode!r}): 'restart' or 'continue'")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How one run is started; what is None is the producer's own default."""

    id: str | None = None
    key: str | None = None
    queue: str | None = None
    timeout: float | timedelta | None = None
    idle_timeout: float | timedelta | None = None
    ahead: int | None = None
    retention: float | timedelta | None = None


class Parameter(msgspec.Struct, frozen=True):
    """One input parameter of a producer."""

    name: str
    type: Any
    required: bool
    keyword: bool  # keyword-only


class Producer(Generic[P, Out]):
    """A named function that yields or returns; only the runner ever drives it. Called plainly, it is the function."""

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        *,
        kind: Kind,
        context: str | None,
        parameters: tuple[Parameter, ...],
        yields: Any,
        returns: Any,
        retry: Retry | None,
        max_crashes: int,
        options: Options,
        requires: tuple[str, ...] = (),
        keep: Keep | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.kind = kind
        self.context = context
        self.parameters = parameters
        self.yields = yields
        self.returns = returns
        self.retry = retry
        self.max_crashes = max_crashes
        self.options = options
        self.requires = requires
        self.keep = keep
        self.__doc__ = target.__doc__
        self._info: ActorInfo | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Out:
        """The function itself, as it was written: for tests and for calls from other producers."""
        result: Out = self.target(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Producer {self.name!r}: {self.kind}>"

    def using(
        self,
        *,
        id: str | None = None,
        key: str | None = None,
        queue: str | None = None,
        timeout: float | timedelta | None = None,
        idle_timeout: float | timedelta | None = None,
        ahead: int | None = None,
        retention: float | timedelta | None = None,
    ) -> Bound[P, Out]:
        """This producer with options for the run to start, as ``client.start(chat.using(key="u1"), "hi")``."""
        options = Options(
            id=id,
            key=key,
            queue=queue,
            timeout=timeout,
            idle_timeout=idle_timeout,
            ahead=ahead,
            retention=retention,
        )
        return Bound(self, options)

    def renamed(self, name: str) -> Producer[P, Out]:
        """The same producer under another name. Raises `InvalidInput` for one that is no name."""
        return Producer(
            check_id(name, "actor"),
            self.target,
            kind=self.kind,
            context=self.context,
            parameters=self.parameters,
            yields=self.yields,
            returns=self.returns,
            retry=self.retry,
            max_crashes=self.max_crashes,
            options=self.options,
            requires=self.requires,
            keep=self.keep,
        )

    @property
    def threaded(self) -> bool:
        """Whether it is driven in a thread of its own."""
        return self.kind in ("generator", "function")

    @property
    def continues(self) -> bool:
        """Whether a new attempt goes on from what was said."""
        return self.retry is not None and self.retry.mode == "continue"

    @property
    def takes_model(self) -> bool:
        """Whether its input is one model, whose fields are not the parameters'."""
        return len(self.parameters) == 1 and _is_model(self.parameters[0].type)

    def info(self) -> ActorInfo:
        """What others are told of it. The schema is best-effort: a type without one is open."""
        if self._info is None:
            doc = inspect.getdoc(self.target) or ""
            self._info = ActorInfo(
                name=self.name, description=doc.partition("\n")[0], kind="actor", input_schema=_schema(self.parameters)
            )
        return self._info

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The input that a call with these arguments means: an object by names, or a sole model itself.

        Raises `InvalidInput` for arguments that do not fit the signature.
        """
        positional = [parameter for parameter in self.parameters if not parameter.keyword]
        if len(args) > len(positional):
            raise InvalidInput(f"{self.name} takes {len(positional)} positional arguments, {len(args)} were given")
        values = dict(zip((parameter.name for parameter in positional), args, strict=False))
        for name, value in kwargs.items():
            if name in values:
                raise InvalidInput(f"{name}: given twice", details={"field": name})
            values[name] = value
        self._check_names(values)
        return self._input_of(values)

    def _input_of(self, values: dict[str, Any]) -> Any:
        if self.takes_model:
            return next(iter(values.values()), None)  # None: its default, which is not the same as an empty object
        return values

    def decode(self, data: bytes) -> dict[str, Any]:
        """The keyword arguments that a run's input JSON gives, each as its parameter's type.

        Raises `InvalidInput` naming the field; nothing was run.
        """
        return self._typed(self._by_name(decode(data)))

    def _typed(self, values: dict[str, Any]) -> dict[str, Any]:
        self._check_names(values)
        types = {parameter.name: parameter.type for parameter in self.parameters}
        return {name: _converted(name, value, types[name]) for name, value in values.items()}

    def settled(self, input: msgspec.Raw) -> msgspec.Raw:
        """The input, checked, in the one form that `bind` gives: whoever starts by name may write it in several.

        Raises as `decode`, and as `encode_input`: that form is a little deeper and longer.
        """
        given = decode(bytes(input))
        values = self._by_name(given)
        self._typed(values)
        settled = self._input_of(values)
        return input if settled is given else encode_input(settled)

    def same(self, one: msgspec.Raw, other: msgspec.Raw) -> bool:
        """Whether two inputs mean the same, read as the parameters' types: within a model, what is left out is its
        default."""
        try:
            return canonical(self.decode(bytes(one))) == canonical(self.decode(bytes(other)))
        except Exception:  # user code: what its models cannot read, or write again, is not known to be the same
            return False

    def _by_name(self, value: Any) -> dict[str, Any]:
        """An object by parameter names; a bare value is short for the sole parameter, a sole model takes the object."""
        if len(self.parameters) == 1:
            sole = self.parameters[0]
            if isinstance(value, dict) and not _is_model(sole.type) and (set(value) == {sole.name} or not value):
                return value
            if value is None and not (sole.required and _takes_null(sole.type)):
                return {}
            if isinstance(value, dict) and not _is_model(sole.type) and not _takes_object(sole.type):
                return value  # its names are wrong; said by name
            return {sole.name: value}
        if value is None:
            return {}
        if not isinstance(value, dict):
            names = ", ".join(parameter.name for parameter in self.parameters) or "no parameters"
            raise InvalidInput(f"input: expected an object with {names}", details={"field": "input"})
        return value

    def _check_names(self, values: Mapping[str, Any]) -> None:
        known = {parameter.name for parameter in self.parameters}
        for name in values:
            if name not in known:
                raise InvalidInput(f"{name}: {self.name} has no such parameter", details={"field": name})
        for parameter in self.parameters:
            if parameter.required and parameter.name not in values:
                raise InvalidInput(f"{parameter.name}: missing", details={"field": parameter.name})


def _converted(name: str, value: Any, type: Any) -> Any:
    try:
        return convert(value, type, field=name)
    except LoomError:
        raise
    except Exception as error:  # user code: what a model's own validator runs into is the input's fault
        raise InvalidInput(f"{name}: {error!r}", details={"field": name}) from error


class Bound(Generic[P, Out]):
    """A producer with options for the run to start."""

    def __init__(self, producer: Producer[P, Out], options: Options) -> None:
        self.producer = producer
        self.options = options


class Registry:
    """Producers by name."""

    def __init__(self) -> None:
        self._producers: dict[str, Producer[Any, Any]] = {}

    def add(self, producer: Producer[Any, Any]) -> None:
        """Raises `UsageError` when the name is taken."""
        if producer.name in self._producers:
            raise UsageError(f"two producers are named {producer.name!r}")
        self._producers[producer.name] = producer

    def get(self, name: str) -> Producer[Any, Any]:
        """Raises `UnknownProducer`, naming what is there."""
        try:
            return self._producers[name]
        except KeyError:
            there = ", ".join(sorted(self._producers)[:20]) or "none"
            raise UnknownProducer(
                f"no actor is named {name[:80]!r} (there are: {there})", details={"actor": name[:80]}
            ) from None

    def find(self, name: str) -> Producer[Any, Any] | None:
        """The producer of that name, if there is one."""
        return self._producers.get(name)

    def __iter__(self) -> typing.Iterator[Producer[Any, Any]]:
        return iter(self._producers.values())

    def __len__(self) -> int:
        return len(self._producers)


def encode_input(value: Any) -> msgspec.Raw:
    """The input's canonical JSON. Raises `InvalidInput` (no JSON, too deep), `LimitExceeded` (too large)."""
    try:
        data = sound(canonical(value))
        check_depth(data)
    except (TypeError, ValueError, RecursionError, RemoteProtocolError) as error:
        raise InvalidInput(f"input: {error}", details={"field": "input"}) from None
    check_size(data, limits.INPUT_BYTES, "an input")
    return msgspec.Raw(data)


def make_producer(
    name: str,
    target: Callable[..., Any],
    *,
    retry: Retry | None = None,
    max_crashes: int = limits.CRASHES,
    options: Options | None = None,
    requires: tuple[str, ...] = (),
    keep: Keep | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> Producer[Any, Any]:
    """The producer that `target` is. Raises `UsageError` naming what its signature lacks."""
    check_id(name, "actor")
    _check_declared(name, retry, max_crashes, options or Options())
    if keep is not None and not isinstance(keep, Keep):
        raise UsageError(f"{name}: keep={keep!r}: a loom.Keep, as loom.Keep(chunks=10_000)")
    function = _callable_of(name, target)
    hints = _hints(name, function, namespace)
    context: str | None = None
    parameters: list[Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f"{name}: parameter {parameter.name!r} must be callable by name (no *args, **kwargs or /)")
        if _is_context(hint):
            if context is not None:
                raise UsageError(f"{name}: both {context!r} and {parameter.name!r} are a Context")
            context = parameter.name
            continue
        _check_readable(name, parameter.name, hint)
        required = parameter.default is parameter.empty
        parameters.append(Parameter(parameter.name, hint, required, parameter.kind is parameter.KEYWORD_ONLY))
    kind = _kind_of(function, hints.get("return"))
    yields, returns = _output(kind, hints.get("return", Any))
    return Producer(
        name,
        function,
        kind=kind,
        context=context,
        parameters=tuple(parameters),
        yields=yields,
        returns=returns,
        retry=retry,
        max_crashes=max_crashes,
        options=options or Options(),
        requires=requires,
        keep=keep,
    )


def _check_declared(name: str, retry: Any, max_crashes: Any, options: Options) -> None:
    """What an author declares is wrong where it stands, not when a run meets it."""
    if retry is not None and not isinstance(retry, Retry):
        raise UsageError(f"{name}: retry={retry!r}: a loom.Retry, as loom.Retry(attempts=3)")
    if not isinstance(max_crashes, int) or max_crashes < 0:
        raise UsageError(f"{name}: max_crashes={max_crashes!r}: a whole number, 0 or more")
    for field in ("timeout", "idle_timeout"):
        value = getattr(options, field)
        if value is not None and not (isinstance(value, (int, float, timedelta)) and (seconds(value) or 0) > 0):
            raise UsageError(f"{name}: {field}={value!r}: seconds or a timedelta, more than 0")
    check_retention(options.retention, f"{name}: ")
    if options.ahead is not None and not (isinstance(options.ahead, int) and options.ahead > 0):
        raise UsageError(f"{name}: ahead={options.ahead!r}: a whole number of chunks, more than 0")
    if options.queue is not None:
        check_id(options.queue, "queue")


def check_retention(value: Any, where: str = "") -> None:
    """Raise `UsageError` unless it is None or a time of 0 or more; 0: until the next sweep."""
    if value is not None and not (isinstance(value, (int, float, timedelta)) and 0 <= (seconds(value) or 0) < inf):
        raise UsageError(f"{where}retention={value!r}: seconds or a timedelta, 0 or more")


def seconds(value: float | timedelta | None) -> float | None:
    """A duration as float seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def _callable_of(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, or for a class a function that makes one instance a run and calls its method."""
    if not inspect.isclass(target):
        return target
    method = "stream" if hasattr(target, "stream") else "execute"
    function = getattr(target, method, None)
    if not callable(function):
        raise UsageError(f"{name}: class {target.__name__} has neither `stream` nor `execute`")
    if any(_must_be_given(parameter) for parameter in inspect.signature(target).parameters.values()):
        raise UsageError(f"{name}: class {target.__name__} must be made without arguments, anew for each attempt")
    return _Method(target, method)


class _Method:
    """`cls().method`, with the method's signature without self: a new instance for each attempt."""

    def __init__(self, cls: type, method: str) -> None:
        self.function = getattr(cls, method)
        self._cls = cls
        self._method = method
        self.__doc__ = cls.__doc__ or self.function.__doc__
        signature = inspect.signature(self.function)
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._cls(), self._method)(*args, **kwargs)


def _must_be_given(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _hints(name: str, function: Callable[..., Any], namespace: Mapping[str, Any] | None) -> dict[str, Any]:
    function = getattr(function, "function", function)
    try:
        return typing.get_type_hints(function, localns=dict(namespace or {}), include_extras=True)
    except Exception as error:  # user code: annotations are evaluated
        raise UsageError(f"{name}: cannot resolve an annotation: {error}") from None


def _is_context(hint: Any) -> bool:
    """Also ``Context | None``, which a producer that is called plainly as well may want."""
    bare = _bare(hint)
    return bare is Context or (_is_union(bare) and Context in typing.get_args(bare))


def _check_readable(name: str, parameter: str, hint: Any) -> None:
    try:
        msgspec.json.Decoder(hint, dec_hook=lambda type, value: value)
    except TypeError as error:
        raise UsageError(f"{name}: parameter {parameter!r} cannot be read from JSON: {error}") from None


_KINDS: tuple[tuple[Kind, tuple[type, ...]], ...] = (
    ("async-generator", (collections.abc.AsyncIterator, collections.abc.AsyncGenerator)),
    ("coroutine", (collections.abc.Awaitable, collections.abc.Coroutine)),
)
"""What a plain function that says it returns one of these is: a wrapper of such a producer."""


def _kind_of(function: Callable[..., Any], returned: Any) -> Kind:
    function = getattr(function, "function", function)
    if inspect.isasyncgenfunction(function):
        return "async-generator"
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    if inspect.isgeneratorfunction(function):
        return "generator"
    origin = typing.get_origin(_bare(returned))
    return next((kind for kind, origins in _KINDS if origin in origins), "function")


_ITERATED = (collections.abc.Iterator, collections.abc.Generator)


def _output(kind: Kind, hint: Any) -> tuple[Any, Any]:
    """(type of data chunks, type of the result), by the return annotation."""
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in ("async-generator", "generator") or origin in _ITERATED:
        if not arguments:
            return Any, Any
        yields, returns = _said(arguments[0])
        return yields, _result(arguments[2]) if origin is collections.abc.Generator else returns
    if kind == "coroutine" and arguments and origin in _KINDS[1][1]:
        hint = arguments[-1]
    return Any, _result(hint)


def _result(hint: Any) -> Any:
    return Any if hint in (None, type(None)) else hint


def _said(hint: Any) -> tuple[Any, Any]:
    """The same of what a generator yields: `Progress` and `Chunk` are no data, ``Result[T]`` names the result."""
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    origins = {member: typing.get_origin(member) or member for member in members}
    data = [member for member, origin in origins.items() if origin not in (Progress, Chunk, Result)]
    results = [typing.get_args(member) for member, origin in origins.items() if origin is Result]
    return (typing.Union[tuple(data)] if data else Any), (results[0][0] if results and results[0] else Any)  # noqa: UP007


def _bare(hint: Any) -> Any:
    """A hint without the constraints that ``Annotated`` puts around it."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_model(type: Any) -> bool:
    """Whether a value of this type is written as a JSON object of named fields."""
    type = _bare(type)
    return inspect.isclass(type) and (
        issubclass(type, msgspec.Struct)
        or dataclasses.is_dataclass(type)
        or typing.is_typeddict(type)
        or hasattr(type, "model_validate")
    )


def _takes_null(type: Any) -> bool:
    try:
        convert(None, type)
    except Exception:  # user code: a model's own validator refuses it in whatever way
        return False
    return True


def _takes_object(type: Any) -> bool:
    origin = typing.get_origin(type) or type
    return origin in (Any, object, dict, Mapping, collections.abc.MutableMapping) or any(
        _is_model(part) or _takes_object(part) for part in typing.get_args(type) if part is not type
    )


def _schema(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    if len(parameters) == 1 and _is_model(parameters[0].type):
        return _type_schema(parameters[0].type)
    return {
        "type": "object",
        "properties": {parameter.name: _type_schema(parameter.type) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.required],
        "additionalProperties": False,
    }


def _type_schema(type: Any) -> dict[str, Any]:
    pydantic_schema = getattr(type, "model_json_schema", None)
    if callable(pydantic_schema):
        schema: dict[str, Any] = pydantic_schema()
        return schema
    try:
        return msgspec.json.schema(type)
    except TypeError:
        return {}
