#!/usr/bin/env bash
# Masked diffusion, block diffusion, D3PM, CMLM and an autoregressive model on the same text, with the same trunk,
# optimiser, steps and batches, scored in the same way. The trained models are also scored with fewer network calls
# and with other samplers. Finished rows are skipped, so the script can be stopped and run again.
#
#   launch/discrete.sh TEXT JUDGE OUT [STEPS]
#
# TEXT is a text.path, "" for the embedded grammar; JUDGE a run of configs/autoregressive.py on the same text, or "" for
# none; OUT a folder for runs and scores. The judge must have a seed other than 0, that of the judged model.
set -euo pipefail
text=${1?TEXT, a text.path} judge=${2?JUDGE, a run directory} out=${3:?OUT, a folder} steps=${4:-4500}
configs=$(cd "$(dirname "$0")/../configs" && pwd)
on_text=() judged=()
if [ -n "$text" ]; then on_text=("--config.text.path=$text"); fi
if [ -n "$judge" ]; then judged=(--judge "$judge"); fi
mkdir -p "$out/scores"

# row NAME CONFIG [--config.FIELD=VALUE …]: trains and scores a config with these changes.
row() {
  local name=$1 config=$2
  shift 2
  python -m jtextdiff.train --config "$configs/$config.py" --workdir "$out/$name" "${on_text[@]}" \
    --config.num_steps="$steps" "$@"
  score "$name" "$name"
}

# score NAME ROW [FLAG …]: scores a trained row, with other sampler settings.
score() {
  local name=$1 run=$2
  shift 2
  if [ -s "$out/scores/$name.json" ]; then return; fi
  python -m jtextdiff.evaluate --checkpoint "$out/$run" "${judged[@]}" "$@" --out "$out/scores/$name.json.part"
  mv "$out/scores/$name.json.part" "$out/scores/$name.json"
}

plain=(--override method.sampler.top_p=1 --override method.sampler.correct=off)
nucleus=(--override method.sampler.top_p=0.9 --override method.sampler.correct=off)

row autoregressive autoregressive
score autoregressive-top-p autoregressive --override method.sampler.top_p=0.9
row masked masked
row block-4 block_diffusion
row cmlm cmlm
row d3pm-absorbing d3pm
row d3pm-uniform d3pm --config.method.kernel=uniform --config.method.schedule=cosine_d3pm
row masked-self-conditioned masked --config.method.self_conditioning=0.5
score block-4-plain block-4 "${plain[@]}"
score block-4-entropy block-4 "${plain[@]}" --override method.sampler.entropy=0.01
score block-4-first-hitting block-4 "${plain[@]}" --sampler first_hitting
score block-4-16 block-4 "${plain[@]}" --steps 16
for name in d3pm-absorbing d3pm-uniform; do
  score "$name-renoise" $name --sampler renoise
done
for name in masked masked-self-conditioned; do
  score "$name-plain" $name "${plain[@]}"
  score "$name-top-p" $name "${nucleus[@]}"
  score "$name-corrected" $name "${plain[@]}" --override method.sampler.correct=random
  for calls in 64 256; do
    score "$name-remasking-$calls" $name "${nucleus[@]}" --sampler remasking --steps $calls
  done
done
score masked-doubtful masked "${plain[@]}" --override method.sampler.correct=doubtful
score masked-self-planning masked "${plain[@]}" --sampler self_planning

for calls in 8 16 32; do
  for name in cmlm d3pm-absorbing d3pm-uniform; do
    score "$name-$calls" $name --steps $calls
  done
  score "masked-$calls" masked "${plain[@]}" --steps $calls
  score "masked-ancestral-$calls" masked "${plain[@]}" --steps $calls --sampler ancestral
  score "masked-cosine-$calls" masked "${plain[@]}" --steps $calls --sampler ancestral --override method.sampler.grid=cosine
  score "masked-confidence-$calls" masked "${plain[@]}" --steps $calls --sampler confidence
done
score cmlm-64 cmlm --steps 64
score masked-ancestral-64 masked "${plain[@]}" --sampler ancestral
score masked-confidence-64 masked "${plain[@]}" --sampler confidence
score masked-first-hitting masked "${plain[@]}" --sampler first_hitting

python -m jtextdiff.compare "$out"/scores/*.json
