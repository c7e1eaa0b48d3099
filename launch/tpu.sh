#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice: copies this library to them, installs it and trains. The same command
# resumes the run after a stop.
#
#   launch/tpu.sh NAME ZONE CONFIG [FLAG …]
#
# CONFIG is one of this library's, such as configs/diffusion_lm.py:e2e. With several hosts, --workdir must be on a file
# system that all of them mount. To stop the run so that all hosts save:
#
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker all --command 'pkill -TERM -f [j]textdiff.train'
set -euo pipefail

usage_error() {
  echo "error: $1" >&2
  exit 2
}
[ $# -ge 3 ] || usage_error "Usage: launch/tpu.sh NAME ZONE CONFIG [FLAG …]."
name=$1 zone=$2 config=$3
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
[[ $config == configs/* && -f $root/${config%%:*} ]] ||
  usage_error "CONFIG must be one of $root/configs, got '$config'."
tpu=(gcloud compute tpus tpu-vm)

packed=$(mktemp)
trap 'rm -f "$packed"' EXIT
tar -czf "$packed" -C "$root" pyproject.toml README.md LICENSE jtextdiff configs
"${tpu[@]}" scp "$packed" "$name:jtextdiff.tar.gz" --zone "$zone" --worker all

# A shell on a TPU host has no variables that name the other hosts: pass the address of the first one.
hosts=$("${tpu[@]}" describe "$name" --zone "$zone" \
  --flatten 'networkEndpoints[]' --format 'value(networkEndpoints.ipAddress)')
coordinator=${hosts%%$'\n'*}:8476 num=$(wc -l <<<"$hosts")
number=http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number

# uv installs a recent Python; that of the hosts may be too old.
# shellcheck disable=SC2016  # each host expands it
steps=(
  'mkdir -p "$HOME/jtextdiff-launch" && cd "$HOME/jtextdiff-launch" && tar -xzf ../jtextdiff.tar.gz'
  'export PATH="$HOME/.local/bin:$PATH"'
  '{ command -v uv >/dev/null || python3 -m pip install --quiet --user uv; }'
  'uv venv --quiet --allow-existing --python 3.12 && uv pip install --quiet -e ".[tpu]"'
  "JAX_PROCESS_ID=\$(curl -fsS -H 'Metadata-Flavor: Google' $number)"
  "export JAX_PROCESS_ID JAX_NUM_PROCESSES=$num JAX_COORDINATOR_ADDRESS=$coordinator"
  "exec .venv/bin/python -m jtextdiff.train --config $(printf '%q ' "$config" "$@")"
)
command=$(printf ' && %s' "${steps[@]}")
"${tpu[@]}" ssh "$name" --zone "$zone" --worker all --command "${command# && }"
