#!/bin/sh
# deps.sh PACKAGE... -- install the Debian packages that are missing, saying which; with sudo
# where the user is not root. A program that is there from elsewhere counts as installed.
set -eu

# Package, then a command that makes it unnecessary.
provided_by() {
    case $1 in
    gcc | make | curl | openssl | squid | microsocks | chromium | valgrind | wrk | clang | codespell) echo "$1" ;;
    nginx-light) echo nginx ;;
    nodejs) echo node ;;
    npm) echo npm ;;
    esac
}

missing=
for p in "$@"; do
    ! dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || continue
    c=$(provided_by "$p")
    [ -z "$c" ] || ! PATH=$PATH:/usr/sbin command -v "$c" >/dev/null 2>&1 || continue
    missing="$missing $p"
done
[ -n "$missing" ] || exit 0

echo "installing Debian packages:$missing"
sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "not root and no sudo here: please install these yourself:$missing" >&2
        exit 1
    }
    sudo=sudo
fi
# A server that a package brings must not start by itself: the tests start their own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
log=$(mktemp)
if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
