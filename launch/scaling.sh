#!/usr/bin/env bash
# Memory, FLOPs and communication of a training step on 1, 8, 64 and 256 devices, and the largest model that fits into
# 80 GB per device: rows of a table, from dry runs. Nothing is trained and no accelerator is needed. Compiling for 256
# simulated devices takes minutes.
#
#   launch/scaling.sh presets      # the papers' model sizes, on the embedded grammar
#   launch/scaling.sh largest      # increasing sizes, on random texts of 512 words
set -euo pipefail
which=${1:?presets or largest}
configs=$(cd "$(dirname "$0")/../configs" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# row NAME DEVICES DATA FSDP TENSOR CONFIG [--config.FIELD=VALUE …]
row() {
  local name=$1 devices=$2 mesh="$3 x $4 x $5"
  local flags=(--devices "$2" --config.mesh.data="$3" --config.mesh.fsdp="$4" --config.mesh.tensor="$5")
  local config=$6
  shift 6
  python -m jtextdiff.train --dry_run --workdir "$work/run" --config "$configs/$config" "${flags[@]}" "$@" \
    >"$work/report.json" 2>"$work/log" || { tail -n 1 "$work/log"; return; }
  python - "$work/report.json" "$name" "$devices" "$mesh" <<'PYTHON'
import json, sys

report, name, devices, mesh = json.load(open(sys.argv[1])), *sys.argv[2:]
memory, gb = report["bytes_a_device"], lambda size: f"{size / 1e9:.2f}"
state = memory["parameters"] + memory["running_mean"] + memory["optimiser"]
sent = sum(kind["bytes"] for kind in report["collectives"].values())
largest = max((kind["largest"] for kind in report["collectives"].values()), default=0)
count = sum(kind["times"] for kind in report["collectives"].values())
batch = report["batch"]
cells = [name, f"{report['parameters'] / 1e6:,.0f} M", devices, mesh, batch["rows"], batch["length"]]
cells += [gb(state), gb(memory["activations_and_gradients"]), gb(memory["total"])]
cells += [f"{report['matmul_flops_a_device'] / 1e12:.2f}"]
cells += [f"{count}: {gb(sent)}, largest {gb(largest)}" if count else "none"]
print("|", " | ".join(map(str, cells)), "|", flush=True)
PYTHON
}

echo "| model | parameters | devices | data x fsdp x tensor | rows | length | state GB | rest GB | all GB | TFLOP a step | collectives, GB |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
case $which in
presets)
  for preset in diffusion_lm.py:paper latent_ops.py:paper; do
    words=(--config.text.tokenizer=words:1)
    row "$preset" 1 1 1 1 "$preset" "${words[@]}"
    row "$preset" 8 1 8 1 "$preset" "${words[@]}"
    row "$preset" 64 8 8 1 "$preset" "${words[@]}"
    row "$preset" 256 8 8 4 "$preset" "${words[@]}"
  done
  ;;
largest)
  mkdir "$work/long"
  for split in train valid; do
    awk 'BEGIN { for (i = 0; i < 300; i++) { for (j = 0; j < 511; j++) printf "w%d ", (i * j) % 997; print "" } }' \
      >"$work/long/$split.txt"
  done
  # ladder DEVICES DATA FSDP ROWS LAYERS WIDTH HEADS
  ladder() {
    local trunk=--config.method.trunk
    row "masked, $5 x $6" "$1" "$2" "$3" 1 masked.py --config.text.path="$work/long" --config.text.length=512 --config.batch_size="$4" \
      $trunk.num_layers="$5" $trunk.width="$6" $trunk.num_heads="$7" $trunk.bfloat16=true $trunk.remat=true \
      --config.optim.matrix_optimizer=adam
  }
  ladder 1 1 1 8 24 2048 16
  ladder 1 1 1 8 32 2560 20
  ladder 8 1 8 64 44 6144 48
  ladder 8 1 8 64 48 7168 56
  ladder 64 1 64 512 80 10240 80
  ladder 64 1 64 512 96 12288 96
  ladder 256 1 256 2048 96 12288 96
  ;;
*)
  echo "error: expected presets or largest, got '$which'." >&2
  exit 2
  ;;
esac
