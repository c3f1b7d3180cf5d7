"""Resources as plain JSON values and back, for the last good copy on disk.

The form follows the classes of `config.resources` field by field; what equals its default is left out. A release that
has more fields reads what one with fewer wrote, and the other way round: fields that are missing have their default,
fields that are not known are passed over. A field that changes its meaning must change its name, or `FORM` must rise.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from enum import Enum
from types import ModuleType
from typing import Any

import attrs

from bgpd.family import Family
from config import resources, values
from config.resources import Resource
from config.selector import Selector, parse_selector

__all__ = ["FORM", "DecodeError", "decode", "encode"]

FORM = 1
"""Rises when the meaning of what is written changes."""


class DecodeError(ValueError):
    """A value that `encode` did not make, or that no class of this release can take."""


def _classes(*modules: ModuleType) -> dict[str, Any]:
    found = (item for module in modules for item in vars(module).values() if isinstance(item, type))
    return {item.__name__: item for item in found if attrs.has(item) or issubclass(item, Enum)}


_CLASSES = _classes(resources, values)


def encode(value: Any) -> Any:
    """A resource, or anything inside one, as JSON. A tagged value is an object with one key."""
    if value is None or isinstance(value, bool | int | str):
        return value if not isinstance(value, Enum) else {"enum": [type(value).__name__, value.name]}
    if isinstance(value, Family):
        return {"family": list(value)}
    if isinstance(value, Selector):
        return {"selector": value.text}
    if isinstance(value, Enum):
        return {"enum": [type(value).__name__, value.name]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, frozenset):
        return {"set": [encode(item) for item in sorted(value, key=str)]}
    if isinstance(value, Mapping):
        return {"map": [[encode(key), encode(item)] for key, item in value.items()]}
    if type(value).__name__ not in _CLASSES:
        raise DecodeError(f"no form for a {type(value).__name__}")
    fields = {
        field.name: encode(getattr(value, field.name))
        for field in attrs.fields(type(value))
        if not _is_default(field, getattr(value, field.name))
    }
    return {type(value).__name__: fields}


def _is_default(field: attrs.Attribute[Any], value: Any) -> bool:
    default: Any = field.default
    if default is attrs.NOTHING:
        return False
    return bool((default.factory() if isinstance(default, attrs.Factory) else default) == value)  # type: ignore[arg-type]


def decode(value: Any) -> Any:
    """What `encode` was given. Raises DecodeError."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict) or len(value) != 1:
        raise DecodeError("neither a plain nor a tagged value")
    ((tag, body),) = value.items()
    try:
        return _tagged(tag, body)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DecodeError(f"no {tag}: {error}") from None


def _tagged(tag: str, body: Any) -> Any:
    if tag == "family":
        return Family(*body)
    if tag == "selector":
        return parse_selector(body)
    if tag == "enum":
        return _CLASSES[body[0]][body[1]]
    if tag == "bytes":
        return base64.b64decode(body, validate=True)
    if tag == "set":
        return frozenset(decode(item) for item in body)
    if tag == "map":
        return {decode(key): decode(item) for key, item in body}
    cls = _CLASSES[tag]
    known = {field.name for field in attrs.fields(cls)}
    return cls(**{name: decode(item) for name, item in body.items() if name in known})


def decode_resource(value: Any) -> Resource:
    """A whole resource. Raises DecodeError."""
    found = decode(value)
    if type(found).__name__ not in resources.KINDS:
        raise DecodeError(f"a {type(found).__name__} is no resource")
    resource: Resource = found
    return resource
