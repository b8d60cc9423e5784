#!/bin/bash
# The newest kubectl of this software directory.
set -euo pipefail
found=$(printf '%s\n' /opt/software/libexec/hpk/binaries/kubectl/v*/kubectl | sort -V | tail -n 1)
if [ ! -x "$found" ]; then
    echo "kubectl: not installed yet: run \`hpk setup binaries\` as root outside the lab" >&2
    exit 127
fi
exec "$found" "$@"
