#!/usr/bin/env bash
# Whether a GPU machine computes rightly, and how fast: tests against its CPU, and benchmarks beside PyTorch if it is
# installed. Each part writes its results to OUT, as JSON or text, and is skipped if these exist already.
#
#   launch/gpu.sh OUT [PART …]
#
# PART is laws, train or sample; all of them without one. Environment variables: TEXT, a text.path (default: the embedded
# grammar); STEPS, the steps of a timing (default: 40); FLAGS, further --config flags for all trainings, such as
# "--config.method.trunk.num_layers=1" for a trial on a small machine.
set -euo pipefail
out=${1:?OUT, a folder}
shift
parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then parts=(laws train sample); fi
root=$(cd "$(dirname "$0")/.." && pwd)
steps=${STEPS:-40}
read -ra flags <<<"${FLAGS:-}"
if [ -n "${TEXT:-}" ]; then flags+=("--config.text.path=$TEXT"); fi
short=(--config.num_steps="$steps" --config.every.evaluate=100000 --config.every.sample=100000)
mkdir -p "$out"

# result FILE COMMAND …: runs a command, and keeps what it prints on stdout once it has ended well.
result() {
  local file=$out/$1
  shift
  if [ -e "$file" ]; then return; fi
  echo "== ${file##*/}: $*" >&2
  if "$@" >"$file.partial"; then mv "$file.partial" "$file"; else echo "failed: $file.partial" >&2; fi
}

laws() {
  result laws.txt python -m pytest -m gpu --rootdir="$root" -c "$root/pyproject.toml" "$root/tests/gpu"
}

train() {
  local preset name
  for preset in diffusion_lm.py:e2e diffusion_lm.py:paper masked.py latent_ops.py:paper; do
    name=${preset/.py/} name=${name/:/-}
    result "train-$name.json" python -m jtextdiff.benchmark train --config "$root/configs/$preset" \
      --num_steps "$steps" "${flags[@]}"
    result "memory-$name.json" python -m jtextdiff.train --config "$root/configs/$preset" --dry_run "${flags[@]}"
  done
}

sample() {
  local run=$out/runs/paper
  python -m jtextdiff.train --config "$root/configs/diffusion_lm.py:paper" --workdir "$run" "${short[@]}" "${flags[@]}" >&2
  python -m jtextdiff.train --config "$root/configs/control.py:paper" --config.base="$run" --config.label=food "${short[@]}" >&2
  result guide.json python -m jtextdiff.benchmark guide --checkpoint "$run" --control food=Japanese --batches 1,64
  result sample.json python -m jtextdiff.benchmark sample --checkpoint "$run" --num 64
}

for part in "${parts[@]}"; do
  case $part in
    laws | train | sample) "$part" ;;
    *) echo "error: unknown part '$part'; there are laws, train and sample." >&2 && exit 2 ;;
  esac
done

python - "$out" <<'EOF'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
rows = [("result", "device", "step ms", "tokens/s", "of the device's products", "compile s", "over PyTorch")]
for file in sorted(out.glob("train-*.json")):
    found = json.loads(file.read_text())
    ratio = found.get("loop_over_torch_compiled")
    rows.append(
        (file.stem, found["device"], f"{found['step_ms']:.1f}", f"{found['tokens_per_second']:,.0f}",
         f"{found['share_of_machine']:.0%}", f"{found['compile_s']:.1f}", "-" if ratio is None else f"{ratio:.2f}")
    )
for row in rows:
    print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, (30, 22, 8, 10, 24, 9, 12))).rstrip())
EOF
