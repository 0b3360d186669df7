#!/usr/bin/env bash
# Runs all tests, with the faster runner where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo test --locked --doc
    cargo nextest run --locked --no-fail-fast
else
    cargo test --locked --no-fail-fast
fi
