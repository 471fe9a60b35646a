"""STAC documents, validated by the schemas that are kept beside the tests: nothing is downloaded."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pystac.validation.local_validator as local
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parent / "schemas"


@cache
def schemas() -> dict[str, Any]:
    """STAC's core schemas that pystac brings along, and the extensions' by their addresses."""
    found = dict(local.get_local_schema_cache())
    for path in SCHEMAS.glob("*.json"):
        name, _, version = path.stem.rpartition("-")
        address = f"https://stac-extensions.github.io/{name}/{version}/schema.json"
        found[address] = json.loads(path.read_text()) | {"$id": address}  # one tag has the address of the version before
    return found


def faults_of(item: dict[str, Any]) -> list[str]:
    """What is wrong with an item, by the core schema and that of every extension that it names."""
    known = schemas()
    registry = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in known.items())
    (core,) = (schema for name, schema in known.items() if name.endswith("item-spec/json-schema/item.json"))
    faults = []
    for schema in (core, *(known[name] for name in item["stac_extensions"])):
        kind = jsonschema.validators.validator_for(schema)
        faults += [f"{schema['$id']}: {error.message[:300]}" for error in kind(schema, registry=registry).iter_errors(item)]
    return faults
