#!/usr/bin/env bash
# Starts the gateway. When no Ollama answers and no model is configured, the demo model is fetched first (once).
# Usage: run.sh ARRIERO [FLAGS OF SERVE...]
set -euo pipefail

arriero=$1
shift
here=$(dirname "$0")

# The folder the demo model belongs in, when it is needed and missing; fails when the configuration is wrong.
folder=$("$arriero" demo-model-folder "$@")
if [[ -n $folder ]]; then
    "$here/demo_model.py" --to "$folder"
fi
exec "$arriero" serve "$@"
