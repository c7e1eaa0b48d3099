#!/usr/bin/env bash
# Whether a GPU machine computes rightly, and how fast: tests against its CPU, and benchmarks beside PyTorch if it is
# installed. Each part writes its results to OUT, as JSON or text, and is skipped if these exist already.
#
#   launch/gpu.sh OUT [PART …]
#
# PART is one of
#   tests   the tests that compare a GPU with the CPU
#   train   time, memory and compilation of training steps
#   sample  guided and unguided sampling at the size of the paper
#   e2e     diffusion_lm.py:e2e, a judge and controls trained to their end, and scores of samples
#   masked  masked diffusion, an autoregressive model and uniform D3PM of 12 layers of 768 on characters: bits a character
#   latent  a text VAE, a control of 200 labels a value, and scores of edits
# The first three by default. Environment variables: TEXT, a text.path (default: the embedded grammar); LABELS, its labels
# that become controls (default: food); STEPS, the steps of a timing (default: 40); LONG, the steps of each model of masked
# (default: 3000); FLAGS and CONTROL_FLAGS, further --config flags for all models and for the controls of e2e and latent,
# such as "--config.num_steps=20 --config.method.trunk.num_layers=1" for a trial on a small machine.
set -euo pipefail
out=${1:?OUT, a folder}
shift
parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then parts=(tests train sample); fi
root=$(cd "$(dirname "$0")/.." && pwd)
steps=${STEPS:-40} long=${LONG:-3000}
read -ra labels <<<"${LABELS:-food}"
read -ra control_flags <<<"${CONTROL_FLAGS:-}"
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

tests() {
  result tests.txt python -m pytest -m gpu --rootdir="$root" -c "$root/pyproject.toml" "$root/tests/gpu"
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

# trained RUN CONFIG FLAG …: trains a run to its end, or goes on from where it stopped.
trained() {
  local run=$1 config=$2
  shift 2
  python -m jtextdiff.train --config "$root/configs/$config" --workdir "$run" "$@" >&2
}

e2e() {
  local run=$out/runs/e2e judge=$out/runs/judge label scores
  trained "$run" diffusion_lm.py:e2e "${flags[@]}"
  trained "$judge" autoregressive.py --config.seed=1 --config.num_steps=3000 --config.method.trunk.dropout=0.1 "${flags[@]}"
  scores=(python -m jtextdiff.evaluate --checkpoint "$run" --judge "$judge")
  result scores.json "${scores[@]}"
  result gaps.json "${scores[@]}" --targets gap:200 --steps 50
  for label in "${labels[@]}"; do
    trained "$run/controls/$label" control.py --config.base="$run" --config.label="$label" "${control_flags[@]}"
    result "targets-$label.json" "${scores[@]}" --targets "$label:79" --num 790 --steps 50
  done
}

masked() {
  local name config
  for name in masked autoregressive d3pm; do
    config=(--config.num_steps="$long" --config.text.tokenizer=characters:2 --config.method.trunk.num_layers=12
      --config.method.trunk.width=768 --config.method.trunk.num_heads=12 --config.method.trunk.bfloat16=true)
    if [ $name = d3pm ]; then config+=(--config.method.kernel=uniform --config.method.schedule=cosine_d3pm); fi
    trained "$out/runs/characters-$name" $name.py "${config[@]}" "${flags[@]}"
    result "characters-$name.json" python -m jtextdiff.evaluate --checkpoint "$out/runs/characters-$name"
  done
}

latent() {
  local run=$out/runs/latent label=${labels[0]}
  trained "$run" latent_ops.py "${flags[@]}"
  trained "$run/controls/$label" control.py --config.base="$run" --config.label="$label" --config.num_labelled=200 "${control_flags[@]}"
  result edits.json python -m jtextdiff.evaluate --checkpoint "$run" --edits "$label" --num 500
}

for part in "${parts[@]}"; do
  case $part in
    tests | train | sample | e2e | masked | latent) "$part" ;;
    *) echo "error: unknown part '$part'; there are tests, train, sample, e2e, masked and latent." >&2 && exit 2 ;;
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

# Scores of different samples cannot share a table; the models of masked can.
for file in "$out"/scores.json "$out"/gaps.json "$out"/targets-*.json; do
  if [ -e "$file" ]; then python -m jtextdiff.compare "$file"; fi
done
characters=("$out"/characters-*.json)
if [ -e "${characters[0]}" ]; then python -m jtextdiff.compare "${characters[@]}"; fi
