#!/bin/sh
# Run a command with a screen for Qt: the display that is there, else a virtual one (Xvfb).
# The "offscreen" platform of Qt will not do: it has no OpenGL.
set -eu

if [ "$(uname)" != Linux ] || [ -n "${DISPLAY:-}" ]; then
    exec "$@"
fi

packages="xvfb xauth libegl1 libgl1 libopengl0 libdbus-1-3 libfontconfig1 libglib2.0-0
    libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
    libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1"

installed() {
    # Debian 13 and Ubuntu 24.04 renamed some libraries to NAMEt64.
    for name in "$1" "$1t64"; do
        case $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) in
            *" installed") return 0 ;;
        esac
    done
    return 1
}

if command -v dpkg-query >/dev/null 2>&1; then
    missing=
    for package in $packages; do
        installed "$package" || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            echo "with-display: installing$missing" >&2
            apt-get update -qq
            # shellcheck disable=SC2086 # a list of names
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                $missing >/dev/null
        else
            echo "with-display: missing Debian packages; install them with" >&2
            echo "    sudo apt-get install$missing" >&2
            exit 1
        fi
    fi
elif ! command -v xvfb-run >/dev/null 2>&1; then
    echo "with-display: no display and no xvfb-run: install Xvfb, EGL, GL and the xcb libraries" >&2
    exit 1
fi

exec xvfb-run -a -s "-screen 0 1600x1000x24" "$@"
