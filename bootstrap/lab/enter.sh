#!/bin/bash
# enter.sh CGROUP_DIRECTORY... -- PROGRAM ARGUMENT...
# Move into the cgroups, then become the program: whatever it starts is found there by the lab.
set -euo pipefail
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec "$@"
