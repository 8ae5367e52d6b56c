"""An AsyncAPI 3.0 document, put together from what declares itself (wire/spoken.py). It knows no channel by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from sidecar.wire.spoken import Argument

Json = dict[str, Any]
SCHEMAS = "#/components/schemas/"


def ref(model: type[BaseModel]) -> Json:
    return {"$ref": f"{SCHEMAS}{model.__name__}"}


def array(items: list[Json], least: int, **more: Any) -> Json:
    """A list of just these, the first `least` of which must be there."""
    return {
        "type": "array",
        "items": items or {},
        "minItems": least,
        "maxItems": len(items),
        **({"additionalItems": False} if items else {}),
        **more,
    }


def arguments(given: Iterable[Argument]) -> Json:
    """The arguments of an event, as the list that goes over the wire."""
    found = [
        {
            "title": argument.name,
            **(argument.schema if isinstance(argument.schema, dict) else {"allOf": [ref(argument.schema)]}),
        }
        for argument in given
    ]
    return array(found, sum(argument.required for argument in given))


class Schemas:
    """The forms of models by name, with those that they are made of."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[type[BaseModel], JsonSchemaMode]] = {}

    def add(self, models: Iterable[type[BaseModel]], mode: JsonSchemaMode) -> None:
        for model in models:
            known = self._models.setdefault(model.__name__, (model, mode))
            if known[0] is not model:
                raise ValueError(f"two models are called {model.__name__}")

    def made(self) -> dict[str, Json]:
        _, found = models_json_schema(list(self._models.values()), ref_template=SCHEMAS + "{model}")
        return {name: _plain(schema) for name, schema in found["$defs"].items()}


def with_type(schema: Json, name: str, field: str = "type") -> Json:
    """This object's form, whose `type` says that it is one."""
    properties = {field: {"const": name}} | {key: value for key, value in schema["properties"].items() if key != field}
    required = [field, *(key for key in schema.get("required", ()) if key != field)]
    return {**schema, "properties": properties, "required": required}


def referred(document: Json) -> dict[str, Json]:
    """Of the document's schemas those that something in it refers to, by name."""
    schemas: dict[str, Json] = document["components"]["schemas"]
    found: set[str] = set()
    open = [{**document, "components": {**document["components"], "schemas": {}}}]
    while open:
        new = _names(open.pop()) - found
        found |= new
        open.extend(schemas[name] for name in new)
    return {name: schemas[name] for name in sorted(found)}


def key(name: str) -> str:
    """A name as the document's keys may be written."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_")


def _names(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        own = {value["$ref"].removeprefix(SCHEMAS)} if str(value.get("$ref", "")).startswith(SCHEMAS) else set()
        return own.union(*(_names(item) for item in value.values()))
    return set().union(*(_names(item) for item in value)) if isinstance(value, list) else set()


def _plain(schema: Json, named: bool = False) -> Json:
    """Without the titles that pydantic makes of names; `named` if its keys are names of fields."""
    found = {}
    for name, value in schema.items():
        if name == "title" and not named and isinstance(value, str):
            continue
        if isinstance(value, dict):
            value = _plain(value, named=name == "properties" and not named)
        elif isinstance(value, list):
            value = [_plain(item) if isinstance(item, dict) else item for item in value]
        found[name] = value
    return found
