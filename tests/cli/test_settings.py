"""Settings: a flag beats the environment, which beats the file, which beats the default."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import StartError
from server.settings import Settings, load

PORTS = st.none() | st.integers(0, 65535)
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUIET
@given(flag=PORTS, variable=PORTS, line=PORTS)
def test_the_strongest_source_wins(tmp_path: Path, flag: int | None, variable: int | None, line: int | None) -> None:
    """Whichever sources speak, the strongest of them is heard."""
    file = tmp_path / "wirthforge.toml"
    file.write_text("" if line is None else f"port = {line}\n")
    environment = {} if variable is None else {"WIRTHFORGE_PORT": str(variable)}
    spoken = [value for value in (flag, variable, line, 8000) if value is not None]
    assert load({"port": flag}, environment, file).port == spoken[0]


def test_lists_replace_each_other_whole(tmp_path: Path) -> None:
    """Engines of a stronger source are not added to those of a weaker one; commas divide them in the environment."""
    file = tmp_path / "wirthforge.toml"
    file.write_text('engines = ["http://file/v1"]\n')
    environment = {"WIRTHFORGE_ENGINES": "http://one/v1, http://two/v1,"}
    assert load({"engines": ("http://flag/v1",)}, environment, file).engines == ("http://flag/v1",)
    assert load({"engines": ()}, environment, file).engines == ("http://one/v1", "http://two/v1")
    assert load({}, {}, file).engines == ("http://file/v1",)


def test_customary_names(tmp_path: Path) -> None:
    """DATABASE_URL and REDIS_URL are heard; our own names for them are stronger."""
    file = tmp_path / "wirthforge.toml"
    file.write_text("")
    environment = {"DATABASE_URL": "postgresql://a", "REDIS_URL": "redis://a"}
    heard = load({}, environment, file)
    assert (heard.database_url, heard.redis_url) == ("postgresql://a", "redis://a")
    assert load({}, {**environment, "WIRTHFORGE_REDIS_URL": "redis://b"}, file).redis_url == "redis://b"


def test_empty_variables_say_nothing(tmp_path: Path) -> None:
    """`WIRTHFORGE_PORT=` in a compose file means: as usual."""
    file = tmp_path / "wirthforge.toml"
    file.write_text("")
    assert load({}, {"WIRTHFORGE_PORT": "", "WIRTHFORGE_CONFIG": "x", "PORT": "1"}, file) == Settings()


def test_the_file_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read if it is there, unless another one is named."""
    monkeypatch.chdir(tmp_path)
    assert load({}, {}).port == 8000
    (tmp_path / "wirthforge.toml").write_text("port = 1\n")
    assert load({}, {}).port == 1
    other = tmp_path / "other.toml"
    other.write_text("port = 2\n")
    assert load({}, {}, other).port == 2


def test_the_data_folder_comes_from_any_source(tmp_path: Path) -> None:
    """As messages suggest: from WIRTHFORGE_DATA_DIR, and from the file."""
    file = tmp_path / "wirthforge.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n')
    assert load({}, {}, file).data_dir == tmp_path
    assert load({}, {"WIRTHFORGE_DATA_DIR": "/srv/wf"}, file).data_dir == Path("/srv/wf")
    assert load({"data_dir": Path("/x")}, {"WIRTHFORGE_DATA_DIR": "/srv/wf"}, file).data_dir == Path("/x")


@pytest.mark.parametrize(
    "line", ["port = -1", "port = 'x'", "engines = 'x'", "colour = 1", "engine_slots = 0", "port = 1.5"]
)
def test_values_that_will_not_do(tmp_path: Path, line: str) -> None:
    """The sentence names the setting."""
    file = tmp_path / "wirthforge.toml"
    file.write_text(line)
    with pytest.raises(StartError, match=line.split(maxsplit=1)[0]):
        load({}, {}, file)


@pytest.mark.parametrize(
    ("name", "url"), [("database_url", "nonsense"), ("database_url", "mysql://x/y"), ("redis_url", "localhost:6379")]
)
def test_addresses_that_are_none(name: str, url: str) -> None:
    """A URL of another kind is told at the start, by the setting's name."""
    with pytest.raises(StartError, match=name):
        load({}, {f"WIRTHFORGE_{name.upper()}": url})


def test_settings_that_come_into_a_log_are_silent_of_secrets() -> None:
    """No password, no key, and no address that may hold one; everything else is told."""
    secret = "hush"
    told = repr(
        Settings(
            port=9123,
            database_url=f"postgresql://me:{secret}@db/x",
            database_owner_url=f"postgresql://me:{secret}@db/x",
            redis_url=f"redis://:{secret}@cache",
            encryption_key=secret,
            engine_keys=(f"big={secret}",),
        )
    )
    assert secret not in told
    assert "port=9123" in told
