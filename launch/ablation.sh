#!/usr/bin/env bash
# Ablation of the Diffusion-LM configuration: each row is the default with one change, trained for the same number of
# steps and scored in the same way. The square-root schedule comes with the norm that suits it. `loss-paper` and
# `before`, the default before embeddings were computed from the text, change several settings that belong together.
# Finished rows are skipped, so the script can be stopped and run again.
#
#   launch/ablation.sh TEXT JUDGE OUT [STEPS] [SEEDS]
#
# TEXT is a text.path; JUDGE a run of configs/autoregressive.py on the same text; OUT a folder for runs and scores.
set -euo pipefail
text=${1:?TEXT, a text.path} judge=${2:?JUDGE, a run directory} out=${3:?OUT, a folder} steps=${4:-2000} seeds=${5:-0}
configs=$(cd "$(dirname "$0")/../configs" && pwd)
mkdir -p "$out/scores"

# row NAME [--config.FIELD=VALUE …]: trains and scores the default with these changes, once per seed.
row() {
  local name=$1 seed run
  shift
  for seed in $seeds; do
    run="$out/$name.$seed"
    [ -s "$out/scores/$name.$seed.json" ] && continue
    python -m jtextdiff.train --config "$configs/diffusion_lm.py" --config.text.path="$text" --workdir "$run" \
      --config.seed="$seed" --config.num_steps="$steps" --config.every.sample="$steps" --config.every.checkpoint="$steps" "$@"
    score "$name" "$run" "$seed"
  done
}

# resample NAME ROW [--override FIELD=VALUE …]: scores a trained row with other sampler settings.
resample() {
  local name=$1 of=$2 seed
  shift 2
  for seed in $seeds; do
    [ -s "$out/scores/$name.$seed.json" ] || score "$name" "$out/$of.$seed" "$seed" "$@"
  done
}

score() {
  local name=$1 run=$2 seed=$3
  shift 3
  python -m jtextdiff.evaluate --checkpoint "$run" --judge "$judge" --override method.bound_points=16 "$@" \
    --out "$out/scores/$name.$seed.json.part"
  mv "$out/scores/$name.$seed.json.part" "$out/scores/$name.$seed.json"
}

method=--config.method
row default
row positions-learned $method.trunk.positions=learned
row positions-rotary $method.trunk.positions=rotary
paper=("$method.output=vector" "$method.mse=1.0" "$method.rounding=1.0" "$method.prior=1.0" "$method.cross_entropy=0.0")
learned=("$method.embeddings=learned")
row loss-paper "${paper[@]}" "${learned[@]}" $method.embed_norm=None $method.embed_dim=16 $method.schedule=sqrt
row embeddings-learned "${learned[@]}"
row embeddings-tuned $method.embeddings=tuned
row schedule-sqrt $method.schedule=sqrt $method.embed_norm=5.6
row before "${learned[@]}" $method.schedule=sqrt $method.embed_norm=5.6 $method.sampler.clamp=0.5
row loss-both $method.mse=1.0 $method.rounding=1.0 $method.prior=1.0
row self-conditioning-off $method.self_conditioning=0.0
row per-token-times-off $method.per_token_times=False
row norm-2 $method.embed_norm=2.0
row norm-4.5 $method.embed_norm=4.5
row dims-16 $method.embed_dim=16
row dims-128 $method.embed_dim=128
row pad-modelled $method.known_length=False
row projections-deep $method.projections=deep

resample clamp-off default --override method.sampler.clamp=0.0
resample clamp-always default --override method.sampler.clamp=1.0
resample temperature-1.2 default --override method.sampler.temperature=1.2
for sampler in ancestral ddim dpm_solver; do
  for calls in 20 50 200; do
    [ "$sampler-$calls" = ancestral-200 ] || resample "$sampler-$calls" default --sampler $sampler --steps $calls
  done
done

python -m jtextdiff.compare "$out"/scores/*.json
