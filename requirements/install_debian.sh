#!/bin/sh
# Installs Debian packages unless all of them are: install_debian.sh PURPOSE PACKAGE...
# Without apt-get or root it says in one line which packages are missing, and fails.
set -eu
purpose=$1
shift

if ! command -v apt-get >/dev/null; then
    echo "==> no apt-get here; $purpose needs, by Debian's names: $*"
    echo "    continuing: a command that is missing is named when it is used"
    exit 0
fi
missing=
for package; do
    dpkg-query -Wf '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "error: $purpose needs Debian packages, and installing them needs root, once:" \
        "apt-get install$missing" >&2
    exit 1
fi
echo "==> installing Debian packages for $purpose:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
apt-get install -qy --no-install-recommends $missing >/dev/null
