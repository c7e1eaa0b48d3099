#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice: brings them this library, installs it and trains. The same command goes on
# after a stop.
#
#   launch/tpu.sh NAME ZONE CONFIG [FLAG …]
#
# CONFIG is one of this library's, such as configs/diffusion_lm.py:e2e. Where there are several hosts, --workdir must be
# on a file system that all of them mount. To stop it, so that all save:
#
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker all --command 'pkill -TERM -f [j]textdiff.train'
set -euo pipefail

wrong() {
  echo "error: $1" >&2
  exit 2
}
[ $# -ge 3 ] || wrong "Usage: launch/tpu.sh NAME ZONE CONFIG [FLAG …]."
name=$1 zone=$2 config=$3
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
[[ $config == configs/* && -f $root/${config%%:*} ]] || wrong "CONFIG must be one of $root/configs, got '$config'."
tpu=(gcloud compute tpus tpu-vm)

packed=$(mktemp)
trap 'rm -f "$packed"' EXIT
tar -czf "$packed" -C "$root" pyproject.toml README.md LICENSE jtextdiff configs
"${tpu[@]}" scp "$packed" "$name:jtextdiff.tar.gz" --zone "$zone" --worker all

# The environment of a shell on a TPU host does not say that it is one of several: they are told by address.
hosts=$("${tpu[@]}" describe "$name" --zone "$zone" \
  --flatten 'networkEndpoints[]' --format 'value(networkEndpoints.ipAddress)')
coordinator=${hosts%%$'\n'*}:8476 num=$(wc -l <<<"$hosts")
number=http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number

# uv brings a Python that is new enough; that of the hosts may not be.
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
