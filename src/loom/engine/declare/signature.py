"""From a function or class, as its author wrote it, to a producer: what it is called with, what it yields.

The parameter annotated `Context` is found by its annotation and is no input.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Unpack

from loom.model.chunk import Chunk, Progress, Result
from loom.model.errors import UsageError
from loom.model.names import check_id
from loom.wire.codec import Codec, codec_of

from .context import Context
from .hints import bare, is_union
from .inputs import Inputs, Parameter
from .options import Declaration
from .producer import Producer

__all__ = ["make_producer"]


def make_producer(
    name: str,
    target: Callable[..., Any],
    *,
    namespace: Mapping[str, Any] | None = None,
    **declared: Unpack[Declaration],
) -> Producer[Any, Any]:
    """The producer that `target` is. `namespace`: the names local to where it stands, which its annotations may use.

    Raises `UsageError` naming what its signature lacks, or what is declared and makes no sense.
    """
    check_id(name, "actor")
    function = _callable_of(name, target)
    hints = _hints(name, function, namespace)
    context, parameters = _parameters(name, function, hints)
    kind = _kind_of(function, hints.get("return"))
    yields, returns = _output(kind, hints.get("return", Any))
    return Producer(
        name,
        function,
        driver=_FunctionDriver(function, kind, context),
        inputs=Inputs(name, parameters),
        yields=_codec(f"{name}: what it yields", yields),
        returns=_codec(f"{name}: its result", returns),
        **declared,
    )


def _parameters(
    name: str, function: Callable[..., Any], hints: Mapping[str, Any]
) -> tuple[str | None, tuple[Parameter, ...]]:
    """(the parameter that is the `Context`, if there is one; those that are input)."""
    context: str | None = None
    found: list[Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f"{name}: parameter {parameter.name!r} must be callable by name (no *args, **kwargs or /)")
        if _is_context(hint):
            if context is not None:
                raise UsageError(f"{name}: both {context!r} and {parameter.name!r} are a Context")
            context = parameter.name
            continue
        if parameter.name == "ctx" and parameter.name not in hints:  # by far the likeliest meaning, and a silent input
            raise UsageError(f"{name}: parameter 'ctx' has no annotation: write ctx: loom.Context")
        codec = _codec(f"{name}: parameter {parameter.name!r}", hint)
        required = parameter.default is parameter.empty
        found.append(Parameter(parameter.name, codec, required, parameter.kind is parameter.KEYWORD_ONLY))
    return context, tuple(found)


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
    plain = bare(hint)
    return plain is Context or (is_union(plain) and Context in typing.get_args(plain))


def _codec(what: str, hint: Any) -> Codec:
    try:
        return codec_of(hint)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None


class _FunctionKind(NamedTuple):
    """One kind of function."""

    name: str
    threaded: bool
    is_one: Callable[[Any], bool]
    wrapped: tuple[type, ...] = ()
    """A plain function annotated to return one of these wraps a producer of this kind."""


_COROUTINE = _FunctionKind(
    "coroutine", False, inspect.iscoroutinefunction, (collections.abc.Awaitable, collections.abc.Coroutine)
)
_KINDS = (
    _FunctionKind(
        "async-generator",
        False,
        inspect.isasyncgenfunction,
        (collections.abc.AsyncIterator, collections.abc.AsyncGenerator),
    ),
    _COROUTINE,
    _FunctionKind("generator", True, inspect.isgeneratorfunction),
)
_FUNCTION = _FunctionKind("function", True, callable)


class _FunctionDriver:
    """Calls a function, with the context under the name of its parameter."""

    def __init__(self, function: Callable[..., Any], kind: _FunctionKind, context: str | None) -> None:
        self.kind = kind.name
        self.threaded = kind.threaded
        self.looks_back = context is not None
        self._function = function
        self._context = context

    def drive(self, arguments: Mapping[str, Any], ctx: Context) -> Any:
        if self._context is None:
            return self._function(**arguments)
        return self._function(**arguments, **{self._context: ctx})


def _kind_of(function: Callable[..., Any], returned: Any) -> _FunctionKind:
    function = getattr(function, "function", function)
    for kind in _KINDS:
        if kind.is_one(function):
            return kind
    origin = typing.get_origin(bare(returned))
    return next((kind for kind in _KINDS if origin in kind.wrapped), _FUNCTION)


_ITERATED = (collections.abc.Iterator, collections.abc.Generator)


def _output(kind: _FunctionKind, hint: Any) -> tuple[Any, Any]:
    """(type of data chunks, type of the result), by the return annotation."""
    hint = bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind.name in ("async-generator", "generator") or origin in _ITERATED:
        if not arguments:
            return Any, Any
        yields, returns = _said(arguments[0])
        return yields, _result(arguments[2]) if origin is collections.abc.Generator else returns
    if kind is _COROUTINE and arguments and origin in kind.wrapped:
        hint = arguments[-1]
    return Any, _result(hint)


def _result(hint: Any) -> Any:
    return Any if hint in (None, type(None)) else hint


def _said(hint: Any) -> tuple[Any, Any]:
    """The same of what a generator yields: `Progress` and `Chunk` are no data, ``Result[T]`` names the result."""
    members = typing.get_args(hint) if is_union(hint) else (hint,)
    origins = {member: typing.get_origin(member) or member for member in members}
    data = [member for member, origin in origins.items() if origin not in (Progress, Chunk, Result)]
    results = [typing.get_args(member) for member, origin in origins.items() if origin is Result]
    return (typing.Union[tuple(data)] if data else Any), (results[0][0] if results and results[0] else Any)  # noqa: UP007
