"""Read what an estimate needs from a model's headers, without its weights: GGUF, or safetensors with config.json."""

from pathlib import Path

from server.hardware.gguf_shapes import read_gguf
from server.hardware.safetensors_shapes import SUFFIX, read_safetensors
from server.hardware.shapes import ModelShape, UnreadableModel

__all__ = ["ModelShape", "UnreadableModel", "read"]


def read(path: Path) -> ModelShape:
    """The shape of the model at `path`.

    Args:
        path: a GGUF file (the first of its parts, if it has several), a folder with config.json and safetensors files,
            one of these files, or a repository's folder in the Hugging Face cache (models--owner--name).

    Raises:
        UnreadableModel: it is not there, is neither, or its header cannot be followed.
    """
    if path.is_dir():
        return read_safetensors(path)
    if not path.exists():
        raise UnreadableModel(f"There is no model {path}.")
    if not path.is_file():
        raise UnreadableModel(f"{path} is neither a file nor a folder.")
    if path.suffix == SUFFIX:
        return read_safetensors(path.parent)
    return read_gguf(path)
