#!/usr/bin/env bash
# One run as many processes on this machine, each with one device where there are GPUs. If one fails, all are ended and
# started again, and go on from the last checkpoint. Ctrl-C and SIGTERM are passed on: all save, and nothing is started
# again; a second one is not waited for.
#
#   launch/local.sh N CONFIG [FLAG …]
#
# N processes of `python -m jtextdiff.train --config CONFIG FLAG …`, of which the first one speaks. In the environment:
# RESTARTS, how often to start again (default: 3), and GRACE, for how many seconds the others may go on once one has
# failed (default: 10).
set -euo pipefail

wrong() {
  echo "error: $1" >&2
  exit 2
}
whole='^(0|[1-9][0-9]{0,5})$'
[[ $# -ge 2 && $1 =~ $whole && $1 != 0 ]] || wrong "Usage: launch/local.sh N CONFIG [FLAG …], with N at least 1."
num=$1 config=$2 restarts=${RESTARTS:-3} grace=${GRACE:-10}
shift 2
[[ $restarts =~ $whole ]] || wrong "RESTARTS must be a whole number, got '$restarts'."
[[ $grace =~ $whole ]] || wrong "GRACE must be a whole number of seconds, got '$grace'."

# The processes are told to end even if this script is killed, where the system can do so.
start=(env)
if setpriv --pdeathsig TERM true 2>/dev/null; then start=(setpriv --pdeathsig TERM env); fi

pids=() # of each process that runs; empty once it has ended
logs=$(mktemp -d)
asked='' # by a signal, to end with this status
pass_on=''
trap 'asked=129 pass_on=1' HUP
trap 'asked=130 pass_on=1' INT
trap 'asked=143 pass_on=1' TERM
trap 'signal KILL; rm -rf "$logs"' EXIT

# process I [FLAG …]: becomes process I of the run.
process() {
  local i=$1
  shift
  exec "${start[@]}" JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$num" JAX_PROCESS_ID="$i" \
    JAX_LOCAL_DEVICE_IDS="$i" python -m jtextdiff.train --config "$config" "$@"
}

# start_all [FLAG …]: starts all processes, at a port where nobody listens.
start_all() {
  local i
  until port=$((10000 + RANDOM % 20000)) && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  set -m # each in a group of its own, so that Ctrl-C reaches it once, through this script
  process 0 "$@" </dev/null &
  pids[0]=$!
  for ((i = 1; i < num; i++)); do
    process "$i" "$@" </dev/null >"$logs/$i" 2>&1 &
    pids[i]=$!
  done
  set +m
}

# signal NAME: sends a signal to all that run.
signal() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    if [ -n "$pid" ]; then kill -s "$1" "$pid" 2>/dev/null || true; fi
  done
}

# gather: notes who has ended, and who of them failed before the others were told to end: there is no saying which was
# the first. A user's mistake stands alone.
gather() {
  local i code
  running=0
  for ((i = 0; i < num; i++)); do
    if [ -z "${pids[i]}" ]; then continue; fi
    if kill -0 "${pids[i]}" 2>/dev/null; then
      running=$((running + 1))
      continue
    fi
    code=0
    wait "${pids[i]}" || code=$?
    kill -s KILL -- "-${pids[i]}" 2>/dev/null || true # what it may have left
    pids[i]=''
    if [ "$code" = 0 ] || [ "$status" = 2 ] || [ -n "$deadline" ]; then continue; fi
    if [ "$code" = 2 ]; then failed='' said=(); fi
    failed="${failed:+$failed, }process $i with status $code"
    if [ "$i" != 0 ]; then said+=("$logs/$i"); fi
    if [ "$code" = 2 ] || [ "$status" = 0 ]; then status=$code; fi
  done
}

for ((round = 1; ; round++)); do
  failed='' said=() status=0 deadline=''
  start_all "$@"
  # Looked at in turn, since `wait` does not tell which of several has ended before bash 5.1.
  while gather && [ "$running" != 0 ]; do
    if [ -n "$failed" ] && [ -z "$deadline" ]; then
      deadline=$((SECONDS + grace))
      if [ -z "$asked" ]; then pass_on=1; fi
    fi
    if [ -n "$pass_on" ]; then
      pass_on=''
      signal TERM
    fi
    if [ -n "$deadline" ] && ((SECONDS > deadline)); then signal KILL; fi
    sleep 0.2 || true
  done 2>/dev/null # what bash itself says of a process that was killed
  case $status in 0 | 130 | 143) exit "${asked:-$status}" ;; esac # finished, or stopped and saved
  if [ "${#said[@]}" != 0 ]; then tail -q -n 10 "${said[@]}" >&2; fi
  if [ "$status" = 2 ] || [ -n "$asked" ] || ((round > restarts)); then
    echo "Ended: $failed." >&2
    exit "$status"
  fi
  echo "Ended: $failed; all start again ($round of $restarts)." >&2
done
