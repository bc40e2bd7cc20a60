#!/usr/bin/env bash
# Fails when openapi/openapi.json is not what the code says.
set -euo pipefail

if ! diff -u openapi/openapi.json <(cargo run --quiet --locked -- openapi); then
    echo "openapi/openapi.json is not current: cargo run -- openapi > openapi/openapi.json" >&2
    exit 1
fi
