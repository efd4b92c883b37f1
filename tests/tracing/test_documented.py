"""What docs/tracing.md says about names."""

import re
from pathlib import Path

from server.tracing import names

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()
NAME = re.compile(r"`((?:http|url|server|gen_ai|wirthforge|error)\.[a-z_.]+)`")


def test_every_name_is_documented_and_no_other() -> None:
    """The page lists exactly what a span may hold."""
    known = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str) and "." in value}
    known -= {names.SCHEMA_URL}
    assert len(known) > 25
    documented = {name for name in NAME.findall(PAGE) if not name.startswith("server.tracing")}
    assert documented == known


def test_the_page_names_the_conventions_version() -> None:
    """The one that spans are sent with."""
    assert f"`{names.SCHEMA_URL}`" in PAGE
