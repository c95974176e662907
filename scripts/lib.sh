# Shared by scripts/gridup, scripts/test and scripts/check: sourced, never run. Bash 3.2 (macOS) is enough.
# shellcheck shell=bash
#
# An environment NAME (cli, dev) is a folder .venvs/NAME-XXXXXXXX that .venvs/NAME links to once it is whole.
# scripts/make_env.py makes it; what is here only tells whether it still fits, with nothing but built-ins,
# because that happens before every command.

# ROOT: the checkout, without symbolic links. Its argument: the running script, itself no symbolic link.
find_root() {
    ROOT=$(CDPATH='' cd -- "${1%/*}/.." && pwd -P)
}

# Whether the environment named $1 is whole and is what make_env.py would make now; sets ENV, its real folder.
# `made` holds three lines: the folder (a moved checkout is another one), the Python it was made from, and
# what GRIDUP_PYTHON was.
ready() {
    local link=$ROOT/.venvs/$1 base asked have want
    [ -f "$link/made" ] || return 1
    { IFS= read -r ENV && IFS= read -r base && IFS= read -r asked; } <"$link/made" || return 1
    [ "${ENV%/*}" = "$ROOT/.venvs" ] && [ "$link" -ef "$ENV" ] || return 1
    [ "$asked" = "${GRIDUP_PYTHON:-}" ] && [ -x "$ENV/bin/python" ] || return 1
    [ -x "$base" ] && ! [ "$base" -nt "$link/made" ] || return 1
    IFS= read -r -d '' have <"$link/requirements.txt"
    IFS= read -r -d '' want <"$ROOT/requirements/$1.txt"
    [ -n "$want" ] && [ "$have" = "$want" ]
}

# Makes sure that the environment named $1 is there; sets ENV. Ends the script when it can't be had.
environment() {
    # Such machines would leave every start to compile what could be read.
    unset PYTHONDONTWRITEBYTECODE
    ready "$1" && return
    find_python
    "$PYTHON" -IB "$ROOT/scripts/make_env.py" "$1" || exit
    ready "$1" && return
    fail "The Python environment in $ROOT/.venvs changed while it was being made." "Run the same command again."
}

# PYTHON: the first Python from 3.10 on, one that can make environments before one that can't.
find_python() {
    local name candidate facts other='' old=''
    PYTHON=''
    local names=(python3 python3.14 python3.13 python3.12 python3.11 python3.10)
    [ -z "${GRIDUP_PYTHON:-}" ] || names=("$GRIDUP_PYTHON")
    for name in "${names[@]}"; do
        while IFS= read -r candidate; do
            [ -n "$candidate" ] && usable "$candidate" || continue
            # A shim may be there without a Python behind it: only what answers counts.
            facts=$("$candidate" -c "$PROBE" </dev/null 2>/dev/null) || continue
            case $facts in
            "venv /"*) PYTHON=${facts#* } && return ;;
            "bare /"*) [ -n "$other" ] || other=${facts#* } ;;
            "old "*) [ -n "$old" ] || old=" ($candidate is ${facts#* })" ;;
            esac
        done <<<"$(type -aP "$name")"
    done
    PYTHON=$other
    [ -z "$PYTHON" ] || return 0
    if [ -n "${GRIDUP_PYTHON:-}" ]; then
        fail "GRIDUP_PYTHON=$GRIDUP_PYTHON is not a working Python 3.10 or newer$old." "Name another one, or unset it."
    fi
    fail "Gridup needs Python 3.10 or newer; none was found$old." \
        "Install it (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python), or name one: GRIDUP_PYTHON=/path/to/python3"
}

# Runs on any Python, also 2. Prints its real path, so that an update to another version is seen.
PROBE='
import os, sys
if sys.version_info < (3, 10):
    print("old %d.%d.%d" % sys.version_info[:3])
else:
    import importlib.util
    whole = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
    print("%s %s" % ("venv" if whole else "bare", os.path.realpath(getattr(sys, "_base_executable", sys.executable))))
'

# macOS has a /usr/bin/python3 that does nothing but open a dialogue when the developer tools are missing.
usable() {
    [ "$1" != /usr/bin/python3 ] || [ "${OSTYPE#darwin}" = "$OSTYPE" ] || xcode-select -p >/dev/null 2>&1
}

# One error: what happened, and what to do next.
fail() {
    printf 'Error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '%s\n' "$2" >&2
    exit 1
}
