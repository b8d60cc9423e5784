#!/bin/bash
# An sbatch that, once armed, kills the kubelet that runs it at a named point, and submits for real.
# It stands first on the control plane's PATH; its directory holds the file "armed" with the point's
# name, and gets "hit" with the point and the pid of the kubelet that was killed.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
real=/usr/bin/sbatch

# The next kubelet must be seen to wait for us: for the file of our answer, which we hold locked.
await_waiter() {
  local lock pid
  lock=$(realpath "$(dirname "${!#}")/sbatch.out")
  for _ in $(seq 300); do
    for pid in $(pgrep -u "$UID" -f '[-]m kubelet'); do
      find "/proc/$pid/fd" -lname "$lock" 2>/dev/null | grep -q . && return
    done
    sleep 0.1
  done
  echo "nobody waited for the lock" >"$here/hit"
  exit 1
}

kill_kubelet() {
  kill -9 "$PPID"
  echo "$1 $PPID" >"$here/hit"
}

mv "$here/armed" "$here/fired" 2>/dev/null || exec "$real" "$@"
point=$(<"$here/fired")
rm "$here/fired"
case "$point" in
kill-instead)
  kill_kubelet "$point"
  ;;
kill-then-submit)
  kill_kubelet "$point"
  await_waiter "$@"
  exec "$real" "$@"
  ;;
submit-then-kill)
  answer=$("$real" "$@")
  kill_kubelet "$point"
  await_waiter "$@"
  echo "$answer"
  ;;
submit-then-kill-and-say-nothing)
  "$real" "$@" >/dev/null
  kill_kubelet "$point"
  ;;
*)
  echo "unknown point $point" >"$here/hit"
  exit 1
  ;;
esac
