"""The tree of settings as types: which names a place knows, and what kind of value stands there."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tiergate.config.problems import Path
from tiergate.config.scalar import Scalar
from tiergate.config.settings import Settings


def bare(annotation: Any) -> tuple[Any, Scalar | None]:
    """Take `Annotated` and `| None` off a type; give what is left and its kind, if it is a single value."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        kind = next((one for one in metadata if isinstance(one, Scalar)), None)
        return (inner, kind) if kind else bare(inner)
    if origin in (Union, UnionType):
        return bare(next(one for one in get_args(annotation) if one is not NoneType))
    return annotation, None


def of_field(field: FieldInfo) -> tuple[Any, Scalar | None]:
    """Give a field's bare type and its kind; pydantic keeps the outermost metadata apart."""
    kind = next((one for one in field.metadata if isinstance(one, Scalar)), None)
    return (field.annotation, kind) if kind else bare(field.annotation)


def choices(annotation: Any) -> tuple[str, ...]:
    """Give the words of a `Literal`, else nothing."""
    return tuple(get_args(annotation)) if get_origin(annotation) is Literal else ()


def items(annotation: Any) -> Any | None:
    """Give the type of what a list or a mapping holds, else None."""
    origin = get_origin(annotation)
    if is_list(annotation):
        return get_args(annotation)[0]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return get_args(annotation)[1]
    return None


def is_list(annotation: Any) -> bool:
    """Tell whether a type is a list in the file."""
    return get_origin(annotation) is tuple


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Give the section behind a type, else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def names(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """Give a section's fields by the names that the file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def at(path: Path) -> Any:
    """Give the bare type that stands at a path, None where there is none."""
    found: Any = Settings
    for part in path:
        model = model_of(found)
        if model is not None:
            field = names(model).get(str(part))
            found = of_field(field)[0] if field else None
        else:
            inner = items(found)
            found = bare(inner)[0] if inner is not None else None
    return found
