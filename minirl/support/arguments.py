"""Checks of the kind of each argument of a public function, by its annotation.

The last line of a module, `check_arguments(__name__)`, lets all its public functions, classes and
methods check their arguments. The code above it needs no such checks, and every new function has
them automatically. The values of numbers and the shapes of arrays are checked by the functions
themselves, with `minirl.support.validation`.
"""

import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minirl.support.failures import raised_by_user
from minirl.support.validation import described, way_out, with_article

# The name in messages of a type in annotations.
NAMES: dict[Any, str] = {
    np.random.Generator: "a numpy.random.Generator",
    Callable: "a function",
    Iterable: "a list",
    Mapping: "a mapping",
    Path: "a path",
    Sequence: "a list",
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    str: "a string",
    types.NoneType: "None",
}
SIMPLE = (types.NoneType, bool, Real, str)
# The exceptions that a wrong argument may cause.
FAULTS = (TypeError, AttributeError, LookupError, ValueError)


def check_arguments(module: str, *, often: Sequence[str] = ()) -> None:
    """Let all public functions, classes and methods of a module check the kinds of their arguments.

    A wrong argument raises a ValueError of one line that names the argument, the expected kind, the
    value and, if there is one, the way out. A list is accepted instead of an array or a tuple.

    Parameters
    ----------
    module : str
        `__name__`.
    often : sequence of str
        Functions, methods (`"PPO.step"`) and classes (all methods but the constructor) that are
        called once per row or minibatch. Their arguments are checked only after an error.
    """
    for name, value in list(vars(sys.modules[module]).items()):
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if inspect.isfunction(inspect.unwrap(value)):
            setattr(sys.modules[module], name, _with_checks(value, name in often))
        elif inspect.isclass(value) and not (
            getattr(value, "_is_protocol", False) or issubclass(value, Exception)
        ):
            _check_methods(value, often)


def _check_methods(owner: type, often: Sequence[str]) -> None:
    constructor = "__new__" if hasattr(owner, "_fields") else "__init__"  # a named tuple has both
    for name, value in list(vars(owner).items()):
        if name.startswith("_") and name not in (constructor, "__call__"):
            continue
        method = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(method):
            all_methods = owner.__name__ in often and name != constructor
            is_often = all_methods or f"{owner.__name__}.{name}" in often
            checked: Any = _with_checks(method, is_often, bound=True)
            if isinstance(value, classmethod | staticmethod):
                checked = type(value)(checked)
            setattr(owner, name, staticmethod(checked) if name == "__new__" else checked)


def _with_checks(
    function: Callable[..., Any], often: bool, *, bound: bool = False
) -> Callable[..., Any]:
    if len(inspect.signature(function).parameters) <= bound:
        return function
    arguments = _Arguments(function, bound)

    @functools.wraps(function)
    def check_first(*args: Any, **kwargs: Any) -> Any:
        if not arguments.of_known_types(args, kwargs):
            args, kwargs = arguments.checked(args, kwargs, strictly=False)
        try:
            return function(*args, **kwargs)
        except FAULTS as error:
            arguments.explain(error, args, kwargs)
            raise

    @functools.wraps(function)
    def check_after_an_error(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except FAULTS as error:
            arguments.explain(error, args, kwargs)
            taken = arguments.checked(args, kwargs, strictly=False)
            before, after = (*args, *kwargs.values()), (*taken[0], *taken[1].values())
            if all(map(operator.is_, before, after)):
                raise
        try:
            return function(*taken[0], **taken[1])  # a list has become an array
        except FAULTS as error:
            arguments.explain(error, *taken)
            raise

    return check_after_an_error if often else check_first


class _Arguments:
    """The kinds of a function's parameters, read from its annotations at the first call."""

    def __init__(self, function: Callable[..., Any], bound: bool) -> None:
        self._function = function
        self._skipped = int(bound)  # self or cls

    @functools.cached_property
    def _kinds(self) -> dict[str, "_Kind"]:
        parameters = list(inspect.signature(self._function).parameters.values())
        hints = typing.get_type_hints(self._function, include_extras=True)
        return {
            parameter.name: _kind(hints.get(parameter.name, Any))
            for parameter in parameters[self._skipped :]
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    @functools.cached_property
    def _defaults(self) -> dict[str, Any]:
        return {
            parameter.name: parameter.default
            for parameter in inspect.signature(self._function).parameters.values()
        }

    @functools.cached_property
    def _known_calls(self) -> set[tuple[Any, ...]]:
        """The types of all arguments of earlier calls in which each of them was right."""
        return set()

    @functools.cached_property
    def _known_types(self) -> dict[str, set[Any]]:
        """Types of earlier arguments that were right and would be right with any value."""
        return {name: set() for name in self._kinds}

    def of_known_types(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether no argument needs a check; fast, because of the records of each minibatch."""
        types = [_type_of(value) for value in (*args[self._skipped :], *kwargs.values())]
        call = (*types, *kwargs)
        if call in self._known_calls:
            return True
        names = (*list(self._known_types)[: len(types) - len(kwargs)], *kwargs)
        known = all(
            kind in self._known_types.get(name, ())
            for name, kind in zip(names, types, strict=False)
        )
        if known and len(names) == len(types):
            self._known_calls.add(call)
        return known

    def explain(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise a ValueError that names the wrong argument, if its kind or shape is wrong.

        An error that already names an argument is not changed, and neither is an error in the code
        of a user.
        """
        named = isinstance(error, ValueError) and self._names_one(str(error))
        if named or raised_by_user(error):
            return
        try:
            args, kwargs = self.checked(args, kwargs)
        except ValueError as explanation:
            raise explanation from error
        given = {**dict(zip(self._kinds, args[self._skipped :], strict=False)), **kwargs}
        shapes = [f"{k} {v.shape}" for k, v in given.items() if isinstance(v, np.ndarray)]
        if shapes and "could not be broadcast" in str(error):  # NumPy's message has no names
            raise ValueError(f"shapes must fit together, got {', '.join(shapes)}") from error

    def _names_one(self, message: str) -> bool:
        return any(name in message.replace(" ", "_") for name in self._kinds)

    def checked(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, strictly: bool = True
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with lists converted to arrays or tuples if those are expected.

        Unless `strictly`, arguments that the function itself may check or accept are not checked.
        """
        given = dict(zip(self._kinds, args[self._skipped :], strict=False))
        positional = len(given)
        given.update((name, kwargs[name]) for name in kwargs if name in self._kinds)
        taken = {name: self._taken(name, given, strictly) for name in given}
        first, last = args[: self._skipped], args[self._skipped + positional :]
        args = (*first, *list(taken.values())[:positional], *last)
        return args, {name: taken.get(name, value) for name, value in kwargs.items()}

    def _taken(self, name: str, given: Mapping[str, Any], strictly: bool) -> Any:
        kind, value = self._kinds[name], given[name]
        try:
            taken = kind.convert(value)
        except (TypeError, ValueError):
            if value is self._defaults[name] or (not strictly and kind.may_accept(value)):
                return value
            raise ValueError(
                f"{name} must be {kind.expected}, got {described(value)}"
                f"{self._exchanged(name, given) or way_out(name, value, kind.accepts, kind.kinds)}"
            ) from None
        if taken is value and kind.by_type:
            self._known_types[name].add(_type_of(value))
        return taken

    def _exchanged(self, name: str, given: Mapping[str, Any]) -> str:
        """The end of a message if the values of this and another argument are exchanged."""
        for other, kind in self._kinds.items():
            if (
                other in given
                and not kind.accepts(given[other])
                and kind.accepts(given[name])
                and self._kinds[name].accepts(given[other])
            ):
                return f"; did you exchange {name} and {other}?"
        return ""


def _type_of(value: Any) -> Any:
    """The property that decides whether an object is of the right kind: mostly its type.

    For a class it is the class itself, because another class may be wrong. For an array it is the
    dtype, because an array of text is not an array of numbers.
    """
    if isinstance(value, np.ndarray):
        return value.dtype
    return (value,) if isinstance(value, type) else type(value)


@dataclass(frozen=True)
class _Kind:
    """What an annotation accepts.

    Parameters
    ----------
    expected : str
        Its name in a message.
    convert : callable
        Converts a value for the function; raises TypeError or ValueError for another kind.
    by_type : bool
        Whether two objects of one type are both right or both wrong.
    simple : tuple of type
        Types of numbers, strings and None that the function itself checks, because its message
        includes the range.
    members : tuple of str
        Attributes of such an object; a function may need only some of them.
    kinds : tuple of type
        Classes whose objects are accepted.
    """

    expected: str
    convert: Callable[[Any], Any]
    by_type: bool = True
    simple: tuple[type, ...] = ()
    members: tuple[str, ...] = ()
    kinds: tuple[type, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether the value is of this kind or can be converted to it."""
        try:
            self.convert(value)
        except (TypeError, ValueError):
            return False
        return True

    def may_accept(self, value: Any) -> bool:
        """Whether the function may accept a value that is not of this kind."""
        if isinstance(value, SIMPLE):
            return isinstance(value, self.simple)
        return not isinstance(value, type) and any(hasattr(value, name) for name in self.members)


@functools.cache
def _kind(hint: Any) -> _Kind:
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is ArrayLike or origin is np.ndarray:
        return _Kind("an array of numbers", _to_array, simple=(Real,))
    if origin is np.dtype:
        return _Kind("a NumPy dtype of numbers", _to_dtype, by_type=False)
    if origin is typing.Annotated:  # with a name for messages, or with a check of the value
        kind = _kind(parts[0])
        return replace(kind, expected=parts[1]) if isinstance(parts[1], str) else kind
    if origin in (typing.Union, types.UnionType):
        # A union with ArrayLike contains the parts of ArrayLike, not its name.
        array = typing.get_args(ArrayLike) if set(typing.get_args(ArrayLike)) <= set(parts) else ()
        rest = [_kind(part) for part in parts if part not in array]
        return _one_of([_kind(ArrayLike), *rest] if array else rest)
    if origin is typing.Literal:
        names = [f'"{part}"' if isinstance(part, str) else repr(part) for part in parts]
        fits = _require(lambda value: isinstance(value, Hashable) and value in parts)
        return _Kind(_alternatives(names), fits, by_type=False, simple=SIMPLE)
    if origin is type:
        same = _require(lambda value: value is parts[0])
        return _Kind(f"the class {parts[0].__name__}", same, kinds=(type,))
    if origin is tuple:
        items = _kind(parts[0]) if parts[1:] == (...,) else None
        return _Kind(_tuple_name(items), functools.partial(_to_tuple, items), by_type=False)
    if origin in (Sequence, Iterable):
        return _Kind(NAMES[origin], _require(_is_list))
    if origin is Callable:
        makes = parts[1] if len(parts) == 2 else Any
        fits = _require(lambda value: _is_function(value, makes))
        return _Kind(NAMES[origin], fits, kinds=(type,))
    if origin in (int, float):
        number = Integral if origin is int else Real
        return _Kind(
            NAMES[origin], _require(lambda value: _is_number(value, number)), simple=SIMPLE
        )
    if getattr(origin, "_is_protocol", False):
        members = _members(origin)
        expected = f"an object with {', '.join(members)}"
        return _Kind(expected, _require(lambda value: _has(value, members)), members=members)
    if isinstance(origin, type) and origin is not Any:
        expected = NAMES.get(origin) or with_article(origin.__name__)
        accepts = _require(lambda value: isinstance(value, origin))
        simple = SIMPLE if origin in (bool, str) else ()
        return _Kind(expected, accepts, simple=simple, members=_members(origin), kinds=(origin,))
    return _Kind("anything", lambda value: value)


def _one_of(kinds: Sequence[_Kind]) -> _Kind:
    def convert(value: Any) -> Any:
        for kind in kinds:
            if kind.accepts(value):
                return kind.convert(value)
        raise TypeError

    names = [kind.expected for kind in kinds]
    return _Kind(
        # None means the default; as an alternative it would not help.
        _alternatives([name for name in names if name != "None"] or names),
        convert,
        all(kind.by_type for kind in kinds),
        tuple(part for kind in kinds for part in kind.simple),
        tuple(name for kind in kinds for name in kind.members),
        tuple(part for kind in kinds for part in kind.kinds),
    )


def _alternatives(names: Iterable[str]) -> str:
    *most, last = dict.fromkeys(names)
    return f"{', '.join(most)} or {last}" if most else last


def _require(fits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not fits(value):
            raise TypeError
        return value

    return convert


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    """Whether the value is an iterable, but not a string, a mapping or a record."""
    record = isinstance(value, str | bytes | Mapping | type) or hasattr(value, "_fields")
    if record or not isinstance(value, Iterable):
        return False
    iter(value)  # TypeError for an array without an axis
    return True


def _is_function(value: Any, makes: Any) -> bool:
    """Whether the value is a function; a class counts as a function that makes its objects.

    A policy can be called too, but it does not count as a function.
    """
    if not isinstance(value, type) or makes is Any:
        return callable(value) and not hasattr(value, "with_observation_statistics")
    result = typing.get_origin(makes) or makes
    if getattr(result, "_is_protocol", False):
        return all(hasattr(value, name) for name in _members(result) if name in vars(result))
    return isinstance(result, type) and issubclass(value, result)


def _tuple_name(items: "_Kind | None") -> str:
    plural = {NAMES[int]: " of whole numbers", NAMES[str]: " of strings"}
    return f"a tuple{plural.get(items.expected, '') if items else ''}"


def _to_tuple(items: "_Kind | None", value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise TypeError
    if items:
        for item in value:
            if not isinstance(item, SIMPLE):
                items.convert(item)
    return value if isinstance(value, tuple) else tuple(value)


def _to_array(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return value
    if hasattr(value, "_fields") or not (isinstance(value, list | tuple) or _is_foreign(value)):
        raise TypeError
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(item, Real) for item in array.flat):
        return array.astype(np.float64)  # fractions
    if array.dtype.kind not in "biuf":
        raise TypeError
    return array


def _to_dtype(value: Any) -> "np.dtype[Any]":
    dtype = np.dtype(value)
    if dtype.kind not in "biuf":
        raise TypeError
    return dtype


def _is_foreign(value: Any) -> bool:
    """An array of another library: a tensor, a data frame."""
    return hasattr(value, "__array__") and not isinstance(value, type)


def _members(kind: type) -> tuple[str, ...]:
    """The names that an object of a kind must have: of a protocol, or a class's methods."""
    parents = [part for part in kind.__mro__ if part.__module__ not in ("builtins", "typing")]
    names = [
        name
        for parent in parents
        for name, value in {**vars(parent).get("__annotations__", {}), **vars(parent)}.items()
        if not name.startswith("_") or name == "__call__"
        if callable(value) or getattr(kind, "_is_protocol", False)
    ]
    return tuple(dict.fromkeys(names))


def _has(value: Any, members: Sequence[str]) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in members)
