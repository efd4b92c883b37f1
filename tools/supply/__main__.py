"""See the package's docstring."""

import sys

from tools.supply import audit, bom, licences

COMMANDS = {"sbom": bom.write, "licences": licences.check, "audit": audit.check}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:  # noqa: PLR2004 (the program and a word)
        sys.exit(f"usage: python -m tools.supply {'|'.join(COMMANDS)}")
    sys.exit(COMMANDS[sys.argv[1]]())
