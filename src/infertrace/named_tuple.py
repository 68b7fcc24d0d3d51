"""`NamedTuple` as of `typing`, which takes many times as long to make a class of it.

A program waits for some twenty of these classes where it makes its first tracer.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from operator import itemgetter

    class _NamedTupleType(type):
        def __new__(cls, name, bases, namespace):
            if bases != (tuple,):
                fields = tuple(namespace.get("__annotations__", ()))
                namespace["_field_defaults"] = {f: namespace[f] for f in fields if f in namespace}
                namespace["_fields"] = namespace["__match_args__"] = fields
                namespace["__slots__"] = ()
                for place, field in enumerate(fields):
                    namespace[field] = property(itemgetter(place))
            return super().__new__(cls, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_NamedTupleType):
        """Its fields are what a class has annotations for, which have to be texts."""

        __slots__ = ()
        _fields = ()

        def __new__(cls, *values, **named):
            left = cls._fields[len(values) :]
            if left or named or len(values) > len(cls._fields):
                try:
                    values += tuple(
                        named.pop(f) if f in named else cls._field_defaults[f] for f in left
                    )
                except KeyError as error:
                    raise TypeError(f"{cls.__name__}: {error} is missing") from None
                if named or len(values) > len(cls._fields):
                    raise TypeError(f"{cls.__name__}: expected {', '.join(cls._fields)}")
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes):
            return type(self)(**{**self._asdict(), **changes})

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            shown = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({shown})"
