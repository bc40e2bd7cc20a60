#!/usr/bin/env bash
# Makes sure that what a command needs is on the machine: cargo, cc, python3, pip (of python3), venv (of python3).
# As root on Debian or Ubuntu it installs what is missing of the system's packages; otherwise it says what to install.
# Usage: require.sh THING...
set -euo pipefail

is_there() {
    case "$1" in
        pip) python3 -m pip --version >/dev/null 2>&1 ;;
        venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# The Debian package of a thing; nothing for what Debian has only in an older version.
package() {
    case "$1" in
        cc) echo build-essential ;;
        python3) echo python3 ;;
        pip) echo python3-pip ;;
        venv) echo python3-venv ;;
    esac
}

missing=()
packages=()
for thing in "$@"; do
    is_there "$thing" && continue
    missing+=("$thing")
    package=$(package "$thing")
    if [[ -n $package ]]; then
        packages+=("$package")
    fi
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if [[ ${#packages[@]} -gt 0 && $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]}"
    apt-get update --quiet >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${packages[@]}" >/dev/null
fi

failed=0
for thing in "${missing[@]}"; do
    is_there "$thing" && continue
    failed=1
    case "$thing" in
        cargo) echo "cargo is missing: install Rust 1.95 or newer from https://rustup.rs" >&2 ;;
        *) echo "$thing is missing: install it (Debian, Ubuntu: apt install $(package "$thing"))" >&2 ;;
    esac
done
exit "$failed"
