"""What goes wrong at the start ends in one sentence that says what to do, and exit status 1."""

import http.server
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from benchmarks import tiny_model
from tests.cli.programs import COMMAND, House, environment


def test_a_taken_port(house: House) -> None:
    """The sentence names the port and two ways to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = house.refusal("up", "--port", port)
    assert sentence == (
        f"Port {port} on 127.0.0.1 is taken: stop what uses it, or choose another with --port or WIRTHFORGE_PORT."
    )


def test_a_host_that_is_not_ours(house: House) -> None:
    """An address of another machine cannot be listened on."""
    assert "is no address of this machine" in house.refusal("up", "--port", "0", "--host", "192.0.2.1")


def test_a_data_folder_that_cannot_be(house: House) -> None:
    """A file is in its place; root cannot write there either."""
    house.data.write_text("")
    sentence = house.refusal("up", "--port", "0")
    assert sentence == (
        f"The data folder {house.data} cannot be written: a file is in its place. "
        "Choose another with WIRTHFORGE_DATA_DIR, or make it writable."
    )


def test_half_a_database(house: House) -> None:
    """What something else began is left as it is, and told."""
    folder = house.data / "postgres-18"
    folder.mkdir(parents=True)
    (folder / "junk").write_text("x")
    sentence = house.refusal("up", "--port", "0")
    assert sentence.startswith(f"The Postgres folder {folder} is incomplete")
    assert [path.name for path in folder.iterdir()] == ["junk"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "abc"), ("PORT", "70000"), ("LOG_LEVEL", "loud"), ("MODEL_SLOTS", "0"), ("COLOUR", "red")],
)
def test_a_wrong_setting(house: House, name: str, value: str) -> None:
    """From the environment, for any command: the sentence names the setting, and where they are all listed."""
    sentence = house.refusal("user", "list", settings={f"WIRTHFORGE_{name}": value})
    assert name.lower() in sentence
    assert "docs/settings.md" in sentence


def test_a_wrong_settings_file(house: House) -> None:
    """A setting that does not exist, a file that is no TOML, a folder, nothing at all."""
    file = house.home / "wirthforge.toml"
    file.write_text('colour = "red"\n')
    assert "colour" in house.refusal("user", "list")
    file.write_text("port = \n")
    assert house.refusal("user", "list").startswith("The settings file wirthforge.toml cannot be read: ")
    assert house.refusal("user", "list", "--config", str(house.home)).startswith(
        f"The settings file {house.home} cannot be read"
    )
    absent = str(house.home / "absent.toml")
    assert house.refusal("user", "list", settings={"WIRTHFORGE_CONFIG": absent}).startswith(
        f"The settings file {absent} cannot"
    )


def test_a_model_that_is_not_there(house: House) -> None:
    """The sentence shows both ways to name one."""
    sentence = house.refusal("up", "--port", "0", "--model", "absent.gguf")
    assert sentence == ("There is no model file absent.gguf. Give the path of a GGUF file, or hf:owner/repo:file.gguf.")


def test_a_model_that_is_none(house: House) -> None:
    """A file of another kind is told before anything is loaded."""
    file = house.home / "text.gguf"
    file.write_text("no model")
    sentence = house.refusal("up", "--port", "0", "--model", str(file))
    assert sentence == f"The model file {file} is no GGUF file (it does not begin with GGUF)."


def test_two_models_of_one_name(house: House) -> None:
    """Nobody could ask for the second."""
    paths = [house.home / folder / "same.gguf" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        tiny_model.build(path)
    flags = [word for path in paths for word in ("--model", str(path))]
    sentence = house.refusal("up", "--port", "0", *flags)
    assert sentence == "Two models would be called same: rename one of the files."


def test_the_hub_is_away(house: House) -> None:
    """Without a network the answer comes at once, and says what else can be done."""
    for words in (("up", "--model", "hf:owner/repo:file.gguf"), ("models", "pull", "hf:owner/repo:file.gguf")):
        done = house.run(*words, settings={"HF_ENDPOINT": "http://127.0.0.1:1"})
        assert done.returncode == 1
        # One line: the library did not begin to try again.
        (line,) = done.stderr.splitlines()
        assert line == (
            "wirthforge: hf:owner/repo:file.gguf cannot be fetched: Hugging Face cannot be reached from here. "
            f"Copy any GGUF file into {house.data / 'models'}, pass --model PATH, or use an engine that runs already "
            "with --engine URL."
        )


class _Nothing(http.server.BaseHTTPRequestHandler):
    """Answers that there is nothing."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub that has nothing."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Nothing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_has_no_such_file(house: House, hub: str) -> None:
    """A misspelt name and a private model look alike from outside; both are named."""
    sentence = house.refusal("models", "pull", "hf:owner/repo:file.gguf", settings={"HF_ENDPOINT": hub})
    assert "the hub has no such file, or shows it only to those with a token (HF_TOKEN)" in sentence


def test_a_model_that_was_fetched_needs_no_hub(house: House) -> None:
    """It is served from the models folder, whatever became of the network."""
    path = house.data / "models" / "owner" / "repo" / "file.gguf"
    path.parent.mkdir(parents=True)
    tiny_model.build(path)
    fetched = house.ask("models", "pull", "hf:owner/repo:file.gguf", settings={"HF_ENDPOINT": "http://127.0.0.1:1"})
    assert fetched == str(path)


@pytest.mark.parametrize(
    "name", ["hf:", "hf:repo:file.gguf", "hf:owner/repo", "hf:owner/repo:file.bin", "hf:-/..:a.gguf"]
)
def test_names_that_are_no_models(house: House, name: str) -> None:
    """How a model of the hub is written is shown."""
    assert house.refusal("models", "pull", name).endswith("does not name a model: write hf:owner/repo:file.gguf.")


def test_commands_without_a_server(house: House) -> None:
    """There is no database to ask; how to have one is told."""
    sentence = (
        f"No server is running on the data folder {house.data}. Start it with `wirthforge up`, or set DATABASE_URL."
    )
    for words in (("user", "list"), ("key", "list", "--user", "ann"), ("migrate",)):
        assert house.refusal(*words) == sentence


def test_a_database_that_is_away(house: House) -> None:
    """The sentence asks about the URL."""
    settings = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}
    assert house.refusal("migrate", settings=settings).endswith("Is DATABASE_URL right?")
    assert "Postgres" in house.refusal("user", "list", settings=settings)


def test_python_without_assertions(house: House) -> None:
    """The server relies on its assertions, so it does not run without them."""
    done = subprocess.run(  # noqa: S603 (our own program)
        [COMMAND[0], "-O", *COMMAND[1:], "up"],
        capture_output=True,
        text=True,
        check=False,
        cwd=house.home,
        env=environment(house.home),
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Run Python without -O: WIRTHFORGE relies on its assertions.\n",
    )
