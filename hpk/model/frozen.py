"""Dataclasses that cost a job little to define.

The standard library's decorator writes and compiles six methods for each class, and its module
brings inspect, ast and more along: 25 of the 80 ms that the supervisor's imports took, for a pod
that needs a third of the classes. Here ``__init__`` is compiled for those of which many objects are
made, and the other methods are the same functions for every class. To a type checker, and to
``fields``, ``replace``, ``asdict`` and ``is_dataclass``, it is the standard one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
else:

    def dataclass(cls: Any = None, *, frozen: bool = False) -> Any:
        """As the standard library's, for what the rooms of the job use of it: no base that has
        fields, and no fields but those with a value for a default."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen)
        names = tuple(_annotations(cls))
        cls._field_names = cls.__match_args__ = names
        cls._optional_names = frozenset(name for name in names if name in cls.__dict__)
        cls.__init__ = _init_of(cls)
        cls.__dataclass_fields__ = _StandardFields(frozen=frozen)
        for name in _FROZEN if frozen else _CHANGING:
            if name not in cls.__dict__:
                setattr(cls, name, _Common.__dict__[name])
        if not frozen:
            cls.__hash__ = None
        return cls

    def replace(thing: Any, **changes: Any) -> Any:
        """As the standard library's, of our own classes."""
        values = {name: getattr(thing, name) for name in thing._field_names}
        return type(thing)(**{**values, **changes})


_FEW_CALLS = 20
_CHANGING = ("__repr__", "__eq__")
_FROZEN = (*_CHANGING, "__hash__", "__setattr__", "__delattr__")


def _annotations(cls: Any) -> dict[str, Any]:
    """Of the class alone, and not of its bases, as Python 3.9 would have it."""
    found: dict[str, Any] = cls.__dict__.get("__annotations__", {})  # noqa: RUF063
    return found


def is_dataclass(cls: Any) -> bool:
    """Whether it is one, ours or the standard library's."""
    return hasattr(cls, "_field_names") or hasattr(cls, "__dataclass_fields__")


def field_names(cls: Any) -> tuple[str, ...]:
    """The fields of a dataclass, ours or the standard library's."""
    names: tuple[str, ...] | None = getattr(cls, "_field_names", None)
    if names is None:
        names = tuple(cls.__dataclass_fields__)
    return names


def optional_names(cls: Any) -> frozenset[str]:
    """Those that have a default value."""
    names: frozenset[str] | None = getattr(cls, "_optional_names", None)
    if names is None:
        import dataclasses

        found = cls.__dataclass_fields__.items()
        names = frozenset(n for n, field in found if field.default is not dataclasses.MISSING)
    return names


def _init_of(cls: Any) -> Any:
    """An ``__init__`` that puts the compiled one into its place once it has been called often:
    compiling costs as much as a hundred calls, and a job makes few objects of a kind."""
    names, optional, calls = cls._field_names, cls._optional_names, 0

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        nonlocal calls
        calls += 1
        values = dict(zip(names, args))
        count = len(args) + len(kwargs)
        values.update(kwargs)
        if len(values) == count and len(args) <= len(names) and calls <= _FEW_CALLS:
            fields = self.__dict__
            for name in names:
                if name in values:
                    fields[name] = values[name]
                    count -= 1
                elif name in optional:
                    fields[name] = cls.__dict__[name]
                else:
                    break
            else:
                if count == 0:
                    return
        compiled = _compile_init(cls)
        if calls > _FEW_CALLS:
            cls.__init__ = compiled
        compiled(self, *args, **kwargs)  # which says what is wrong, where something is

    return __init__


def _compile_init(cls: Any) -> Any:
    """Of the class's own names and nothing else, so nobody can put code into it."""
    optional = cls._optional_names
    parameters = "".join(
        f", {name}=__scope[{name!r}]" if name in optional else f", {name}"
        for name in cls._field_names
    )
    lines = "".join(f"    __fields[{name!r}] = {name}\n" for name in cls._field_names)
    scope: dict[str, Any] = {"__scope": {name: cls.__dict__[name] for name in optional}}
    text = f"def __init__(__self{parameters}):\n    __fields = __self.__dict__\n{lines}"
    exec(text, scope)  # noqa: S102 - see above
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


class _StandardFields:
    """What the standard library's functions look for, made for who asks."""

    def __init__(self, *, frozen: bool) -> None:
        self._frozen = frozen

    def __get__(self, thing: object, cls: Any) -> Any:
        import dataclasses

        body = {name: cls.__dict__[name] for name in cls._optional_names}
        body.update(__annotations__=_annotations(cls), __module__=cls.__module__)
        like: Any = dataclasses.dataclass(frozen=self._frozen)(type(cls.__name__, (), body))
        cls.__dataclass_params__ = like.__dataclass_params__
        cls.__dataclass_fields__ = like.__dataclass_fields__
        return cls.__dataclass_fields__


class _Common:
    """What every class has in common."""

    _field_names: tuple[str, ...]

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._field_names)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._field_names)
        return f"{type(self).__qualname__}({pairs})"

    def __eq__(self, other: object) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return _Common._values(self) == _Common._values(other)

    def __hash__(self) -> int:
        return hash(_Common._values(self))

    def __setattr__(self, name: str, value: object) -> None:
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
