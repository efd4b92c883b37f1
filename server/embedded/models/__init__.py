"""The built-in models, trained by tools/models on this project's own words: they answer until there is a real one."""

from pathlib import Path

# The best first.
DEMONSTRATION = tuple(Path(__file__).with_name(f"wirthforge-{size}.gguf") for size in ("large", "middle", "small"))
