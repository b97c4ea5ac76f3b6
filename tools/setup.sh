#!/bin/sh
# Make .venv with the extra named in $1 ("training" or "test") and stamp it as ready.
# Package indexes are those of pip's own configuration.
set -eu
extra=$1
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
                >/dev/null 2>&1; then
            PYTHON=$candidate
            break
        fi
    done
fi
if [ -z "${PYTHON:-}" ]; then
    echo "setup: no Python 3.11 or newer with venv found: install one, or say make PYTHON=..." >&2
    exit 1
fi

# The extra "test" holds "training": what is there is enough.
if [ "$extra" = training ] && [ -e .venv/.ready-test ] &&
    [ ! pyproject.toml -nt .venv/.ready-test ] && [ ! constraints.txt -nt .venv/.ready-test ]; then
    touch .venv/.ready-training
    exit 0
fi

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
echo "setup: installing napari-diffseg[$extra] into .venv (several minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".[$extra]"
touch ".venv/.ready-$extra"
