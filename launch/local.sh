#!/usr/bin/env bash
# One run as several processes on this machine, with one GPU each if there are GPUs. If one process fails, all are
# stopped and restarted from the last checkpoint. Ctrl-C and SIGTERM are forwarded: all processes save and none is
# restarted. A second signal ends them without saving.
#
#   launch/local.sh N CONFIG [FLAG …]
#
# Starts N processes of `python -m jtextdiff.train --config CONFIG FLAG …`; process 0 prints. Environment variables:
# RESTARTS, the number of restarts (default: 3), and GRACE, the seconds that the other processes get to end after one
# has failed (default: 10).
set -euo pipefail

usage_error() {
  echo "error: $1" >&2
  exit 2
}
number='^(0|[1-9][0-9]{0,5})$'
[[ $# -ge 2 && $1 =~ $number && $1 != 0 ]] || usage_error "Usage: launch/local.sh N CONFIG [FLAG …], with N at least 1."
num=$1 config=$2 restarts=${RESTARTS:-3} grace=${GRACE:-10}
shift 2
[[ $restarts =~ $number ]] || usage_error "RESTARTS must be a whole number, got '$restarts'."
[[ $grace =~ $number ]] || usage_error "GRACE must be a whole number of seconds, got '$grace'."

# Where the system supports it, the processes end even if this script is killed.
start=(env)
if setpriv --pdeathsig TERM true 2>/dev/null; then start=(setpriv --pdeathsig TERM env); fi

pids=() # by process number; empty once the process has ended
logs=$(mktemp -d)
stop_status='' # the exit status after a signal
forward=''
trap 'stop_status=129 forward=1' HUP
trap 'stop_status=130 forward=1' INT
trap 'stop_status=143 forward=1' TERM
trap 'signal KILL; rm -rf "$logs"' EXIT

# process I [FLAG …]: replaces this shell by process I of the run.
process() {
  local i=$1
  shift
  exec "${start[@]}" JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$num" JAX_PROCESS_ID="$i" \
    JAX_LOCAL_DEVICE_IDS="$i" python -m jtextdiff.train --config "$config" "$@"
}

# start_all [FLAG …]: starts all processes, with a free port.
start_all() {
  local i
  until port=$((10000 + RANDOM % 20000)) && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  set -m # a process group for each, so that Ctrl-C reaches it only once, through this script
  process 0 "$@" </dev/null &
  pids[0]=$!
  for ((i = 1; i < num; i++)); do
    process "$i" "$@" </dev/null >"$logs/$i" 2>&1 &
    pids[i]=$!
  done
  set +m
}

# signal NAME: sends a signal to all running processes.
signal() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    if [ -n "$pid" ]; then kill -s "$1" "$pid" 2>/dev/null || true; fi
  done
}

# collect: records which processes have ended, and which of them failed before the others were stopped. Which of them
# failed first is unknown. A user's mistake (status 2) replaces all other failures.
collect() {
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
    kill -s KILL -- "-${pids[i]}" 2>/dev/null || true # its remaining children
    pids[i]=''
    if [ "$code" = 0 ] || [ "$status" = 2 ] || [ -n "$deadline" ]; then continue; fi
    if [ "$code" = 2 ]; then failed='' failed_logs=(); fi
    failed="${failed:+$failed, }process $i with status $code"
    if [ "$i" != 0 ]; then failed_logs+=("$logs/$i"); fi
    if [ "$code" = 2 ] || [ "$status" = 0 ]; then status=$code; fi
  done
}

for ((round = 1; ; round++)); do
  failed='' failed_logs=() status=0 deadline=''
  start_all "$@"
  # Polls, since `wait` does not report which of several processes has ended before bash 5.1.
  while collect && [ "$running" != 0 ]; do
    if [ -n "$failed" ] && [ -z "$deadline" ]; then
      deadline=$((SECONDS + grace))
      if [ -z "$stop_status" ]; then forward=1; fi
    fi
    if [ -n "$forward" ]; then
      forward=''
      signal TERM
    fi
    if [ -n "$deadline" ] && ((SECONDS > deadline)); then signal KILL; fi
    sleep 0.2 || true
  done 2>/dev/null # without the messages of bash about killed processes
  case $status in 0 | 130 | 143) exit "${stop_status:-$status}" ;; esac # finished, or stopped and saved
  if [ "${#failed_logs[@]}" != 0 ]; then tail -q -n 10 "${failed_logs[@]}" >&2; fi
  if [ "$status" = 2 ] || [ -n "$stop_status" ] || ((round > restarts)); then
    echo "Failed: $failed." >&2
    exit "$status"
  fi
  echo "Failed: $failed. Restarting all processes ($round of $restarts)." >&2
done
