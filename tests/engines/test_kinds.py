"""Kinds of engines: how they are written, which addresses are refused, and plugins."""

import importlib
import socket
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.engines.addresses import CheckedResolver, is_metadata
from server.engines.kinds import BUILT_IN, Defaults, EngineSpec, check_url, load_kinds, read_spec
from server.engines.openai_compatible import OpenAICompatible
from server.errors import EngineFailed, InvalidRequest
from tests.engines.raw_engine import serve_raw
from tests.stand_ins import openai_engine

EXAMPLE = Path(__file__).parents[1] / "plugins" / "example"
DEFAULTS = Defaults(slots=16, silence_ms_max=1_000)


@pytest.mark.parametrize(
    ("text", "name", "kind", "url"),
    [
        ("http://a:8000/v1", "a:8000", "openai", "http://a:8000/v1"),
        ("https://a/v1/", "a", "openai", "https://a/v1/"),
        ("tgi+http://a:8080", "a:8080", "tgi", "http://a:8080"),
        ("big=vllm+http://a:8000/v1", "big", "vllm", "http://a:8000/v1"),
        ("big=http://a:8000/proxy/v1", "big", "openai", "http://a:8000/proxy/v1"),
        ("http://user:secret@a:8000/v1", "a:8000", "openai", "http://user:secret@a:8000/v1"),
    ],
)
def test_an_engine_is_written_as_name_kind_and_url(text: str, name: str, kind: str, url: str) -> None:
    """Name and kind may be left out; then it is OpenAI's and called after its address, without its password."""
    spec = read_spec(text)
    assert (spec.name, spec.kind, spec.url) == (name, kind, url)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a:8000", "ftp://a", "file:///etc/passwd", "=http://a", "+http://a", "Big Name=http://a", "x+y+http://a"],
)
def test_what_is_written_otherwise_is_refused_with_how_it_should_be(text: str) -> None:
    """One sentence says what was read and what was wanted."""
    with pytest.raises(InvalidRequest, match=r"\[name=\]\[kind\+\]http://host:port/v1"):
        read_spec(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.169.254./v1",
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://0251.0376.0251.0376/v1",
        "http://0xa9.254.43518/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[::ffff:a9fe:a9fe]/v1",
        "http://[::a9fe:a9fe]/v1",
        "http://[64:ff9b::a9fe:a9fe]/v1",
        "http://[2002:a9fe:a9fe::1]/v1",
        "http://[fe80::1]/v1",
        "http://[fd00:ec2::254]/v1",
        "http://user:pw@169.254.169.254/v1",
        "http://100.100.100.200/v1",
        "http://METADATA.google.internal/v1",
        "http://metadata.google.internal./v1",
    ],
)
def test_addresses_of_metadata_are_refused_however_they_are_written(url: str) -> None:
    """Decimal, hexadecimal, octal, inside IPv6, with a dot at the end, behind a user."""
    with pytest.raises(InvalidRequest, match="metadata"):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http:///v1",
        "file:///etc/passwd",
        "gopher://a/",
        "http://a:99999/v1",
        "http://a:0/v1",
        "http://a:x/v1",
        "http://[::1/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://a b/v1",
        "http://a\\@b/v1",
        "http://a\n/v1",
        "http://a..b/v1",
        "http://169。254。169。254/v1",
        "http://１６９.254.169.254/v1",
        "http://169%2e254.169.254/v1",
        "http://a/v1?x=1",
        "http://a/v1#x",
        "//a/v1",
    ],
)
def test_what_is_no_address_of_an_engine_is_refused(url: str) -> None:
    """Other schemes, no host, letters that somebody would normalise into another host."""
    with pytest.raises(InvalidRequest) as caught:
        check_url(url)
    assert caught.value.param == "url"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1:8000",
        "http://[::1]:8000/v1",
        "https://gpu_1.lan./v1",
        "http://10.0.0.7/v1",
    ],
)
def test_engines_live_at_home(url: str) -> None:
    """Private networks and this machine are where engines are."""
    check_url(url)


@given(
    st.one_of(
        st.text(),
        st.text().map("http://{}".format),
        st.text("[]:@%.0123456789abcdefx/\\", max_size=30).map("http://{}".format),
    )
)
def test_checking_an_address_ends_in_one_way_only(url: str) -> None:
    """Whatever it is, it is taken or refused as a bad request."""
    with suppress(InvalidRequest):
        check_url(url)
        assert is_within_a_line(url)


def is_within_a_line(url: str) -> bool:
    """What is taken can be written into a request and into a log."""
    return url.isascii() and url.isprintable() and " " not in url


class Names(AbstractResolver):
    """A resolver that knows what a test says, and counts."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.asked = 0

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 (its interface)
    ) -> list[ResolveResult]:
        """The same for every host."""
        self.asked += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("addresses", [("169.254.169.254",), ("127.0.0.1", "169.254.169.254"), ("::ffff:a9fe:a9fe",)])
async def test_a_name_that_stands_for_metadata_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    """It is found out when a connection is opened; one good address beside it changes nothing."""
    names = Names(*addresses)
    monkeypatch.setattr("server.engines.openai_compatible.CheckedResolver", lambda: CheckedResolver(names))
    engine = OpenAICompatible("http://innocent.example/v1", slots=1, silence_ms_max=500)
    with pytest.raises(EngineFailed, match="cannot be reached"):
        await engine.probe()
    await engine.close()
    assert names.asked == 1


async def test_a_name_is_resolved_once_and_that_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is connected to: nothing is asked again in between."""
    names = Names("127.0.0.1")
    monkeypatch.setattr("server.engines.openai_compatible.CheckedResolver", lambda: CheckedResolver(names))
    async with serve_raw() as raw:
        port = raw.url.rpartition(":")[2]
        engine = OpenAICompatible(f"http://engine.example:{port}", slots=1, silence_ms_max=500)
        assert [model.id for model in await engine.probe()] == ["raw"]
        await engine.close()
    assert names.asked == 1


async def test_the_systems_own_resolver_reads_numbers_too() -> None:
    """A host that only the system's resolver understands is checked after it."""
    resolver = CheckedResolver()
    with pytest.raises(OSError, match="metadata"):
        await resolver.resolve("0xa9fea9fe", 80)
    assert (await resolver.resolve("localhost", 80))[0]["host"] in {"127.0.0.1", "::1"}
    await resolver.close()
    assert not is_metadata("localhost")


def install(package: Path, site: Path) -> None:
    """As an installer would: the modules, and what the package says of itself."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module in (package / "src").iterdir():
        (site / module.name).symlink_to(module)


async def test_the_worked_example_is_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its package is installed, an engine of this kind is found, made and asked."""
    assert "gateway" not in load_kinds()
    install(EXAMPLE, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    kinds = load_kinds()
    assert kinds.keys() - BUILT_IN.keys() == {"gateway"}
    async with openai_engine.serve(openai_engine.Order()) as url:
        engine = kinds["gateway"](EngineSpec(name="g", kind="gateway", url=url.removesuffix("/v1")), DEFAULTS)
        assert (engine.name, engine.kind, engine.slots, engine.isolates_caches) == ("g", "gateway", 4, None)
        assert [model.id for model in await engine.probe()] == [openai_engine.MODEL]
        await engine.close()
    sys.modules.pop("wirthforge_example_engine")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("broken", "no_such_module:make", "ModuleNotFoundError"),
        ("broken", "server.engines.kinds:no_such_name", "AttributeError"),
        ("broken", "server.engines.kinds:GROUP", "it is no function"),
        ("vllm", "server.engines.kinds:load_kinds", "its name is taken"),
    ],
)
def test_a_broken_plugin_is_named_and_left_out(name: str, value: str, reason: str) -> None:
    """It cannot be imported, is no function, or wants a built-in name; the others stay."""
    with capture_logs() as logs:
        kinds = load_kinds([EntryPoint(name, value, "wirthforge.engines")])
    assert kinds == dict(BUILT_IN)
    (line,) = logs
    assert (line["event"], line["plugin"]) == ("engine plugin left out", name)
    assert reason in line["reason"]
