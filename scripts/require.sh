#!/usr/bin/env bash
# Says which of the named programs is missing and where it comes from. Usage: require.sh PROGRAM...
set -euo pipefail

missing=0
for program in "$@"; do
    command -v "$program" >/dev/null && continue
    missing=1
    case "$program" in
        cargo) echo "cargo is missing: install Rust 1.95 or newer from https://rustup.rs" >&2 ;;
        python3) echo "python3 is missing: install it (Debian, Ubuntu: apt install python3 python3-pip python3-venv)" >&2 ;;
        *) echo "$program is missing: install it" >&2 ;;
    esac
done
exit "$missing"
