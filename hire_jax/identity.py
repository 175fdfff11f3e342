"""What of its settings tells one run from another."""

import dataclasses
from typing import Any

# Metadata of a field that a later version adds: runs of before, which did not have it, had its default.
LATER: Any = {"omit_default": True}


def identifying(settings: Any) -> dict[str, Any]:
    """{field: value} of a dataclass, without the fields marked `LATER` that have their default."""
    return {field.name: value
            for field, value in ((field, getattr(settings, field.name)) for field in dataclasses.fields(settings))
            if not (field.metadata.get("omit_default") and value == field.default)}
