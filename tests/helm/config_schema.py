"""What values.schema.json says of `config`, made from the settings themselves.

`python -m tests.helm.config_schema` writes it anew after a setting has come or gone.
"""

import json
from typing import Any

import msgspec

from server.settings import Settings
from tests.helm.charts import CHART

SCHEMA = CHART / "values.schema.json"
# These have places of their own in the values, come from secrets, or are for `up` only.
ELSEWHERE = frozenset(
    {
        "host", "port", "public_url", "trusted_proxies", "data_dir", "upkeeps", "engines", "engine_keys",
        "database_url", "database_owner_url", "redis_url", "encryption_key", "shutdown_delay_ms", "shutdown_grace_ms",
        "models", "model_cache_bytes_max", "model_slots", "model_context_tokens",
    }
)  # fmt: skip


def of_config() -> dict[str, Any]:
    """The settings that `config` takes, as JSON schemas."""
    whole = msgspec.json.schema(Settings, schema_hook=lambda _: {"type": "string"})
    fields: dict[str, Any] = whole["$defs"]["Settings"]["properties"]
    found = {}
    for name, field in fields.items():
        if name not in ELSEWHERE:
            kept = {key: value for key, value in field.items() if key != "default"}
            found[name] = {"type": "array", "items": {"type": "string"}} if kept.get("type") == "array" else kept
    return found


def write() -> None:
    """Put it in its place."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"]["properties"] = of_config()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    write()
