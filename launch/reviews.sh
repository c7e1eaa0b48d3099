#!/usr/bin/env bash
# A text VAE with one latent, at two weights of the KL, one with a latent for every layer, and a CVAE, on the same
# reviews with the same sizes; a control of few labels and one of all; and edits to the other value: by the control's
# energy, by the difference of the means, by the flow of two normals and by a learned field, with and without the
# energy; and by the energy with decoding guided by words, as decoded and minimal. All edits are of the same texts, by
# the same judges. Finished rows are skipped, so the script can be stopped and run again. Tokens are characters, as suits
# Chinese and Japanese.
#
#   launch/reviews.sh DATA LABEL OUT [STEPS] [SEED]
#
# Another number of STEPS, or another SEED, needs another OUT.
# DATA is a folder that jtextdiff.prepare wrote, LABEL a label of its texts, OUT a folder for runs and scores.
set -euo pipefail
data=${1:?DATA, a folder of jtextdiff.prepare} label=${2:?LABEL, a label of the texts} out=${3:?OUT, a folder}
steps=${4:-8000} seed=${5:-0} num=1000
configs=$(cd "$(dirname "$0")/../configs" && pwd)
tokens=(--config.text.tokenizer=characters:8 --config.text.length=32)
unguided=(--word_guidance 0 --word_hold 0)
mkdir -p "$out/scores" "$out/edits"

# train NAME CONFIG TEXT STEPS [--config.FIELD=VALUE …]: trains a model on one of the folders, and scores it.
train() {
  local name=$1 config=$2 text=$3 num_steps=$4
  shift 4
  python -m jtextdiff.train --config "$configs/$config" --workdir "$out/$name" --config.text.path="$data/$text" \
    "${tokens[@]}" --config.num_steps="$num_steps" --config.seed="$seed" "$@"
  [ -s "$out/scores/$name.json" ] ||
    python -m jtextdiff.evaluate --checkpoint "$out/$name" --override text.path="$data/whole" --out "$out/scores/$name.json"
}

# model NAME CONFIG [--config.FIELD=VALUE …]: trains a text VAE, fits a control of 200 labels a value and one of all, and
# scores edits by their energies.
model() {
  local name=$1 config=$2 labelled p
  shift 2
  train "$name" "$config" pieces "$steps" "$@"
  for labelled in 200 all; do
    if [ ! -d "$out/$name-$labelled" ]; then
      rm -rf "$out/$name-$labelled.part"
      cp -r "$out/$name" "$out/$name-$labelled.part"
      mv "$out/$name-$labelled.part" "$out/$name-$labelled"
    fi
    fit control "$name-$labelled" "$labelled"
    for p in 0.5 0.9 0.99 0.999; do
      edit "$name-$labelled" energy "$p" "${unguided[@]}" --target_probability "$p"
    done
  done
}

# fit CONFIG RUN NUM_LABELLED [--config.FIELD=VALUE …]: fits a control or a field of the label.
fit() {
  local config=$1 run=$2 few=()
  [ "$3" = all ] || few=("--config.num_labelled=$3")
  shift 3
  python -m jtextdiff.train --config "$configs/$config.py" --config.base="$out/$run" --config.label="$label" \
    --config.text.path="$data/whole" "${few[@]}" "$@"
}

# edit RUN METHOD SETTING [FLAG …]: scores edits of validation texts.
edit() {
  local run=$1 file="$out/edits/$1-$2.$3.json"
  shift 3
  [ -s "$file" ] && return
  python -m jtextdiff.evaluate --checkpoint "$out/$run" --edits "$label" --override text.path="$data/whole" \
    --judge_text "$data/judge" --judge "$out/judge" --num "$num" "$@" --out "$file.part"
  mv "$file.part" "$file"
}

# field RUN VELOCITY: fits a field to all labels, unless the run has it.
field() {
  grep -qs "\"velocity\": \"$2\"" "$out/$1/flows/$label/config.json" && return
  rm -rf "$out/$1/flows"
  fit flow "$1" all --config.method.velocity="$2"
}

# along RUN VELOCITY PUSH …: scores edits along a field.
along() {
  local run=$1 velocity=$2 push
  shift 2
  for push in "$@"; do
    [ -s "$out/edits/$run-$velocity.$push.json" ] && continue
    field "$run" "$velocity"
    edit "$run" "$velocity" "$push" "${unguided[@]}" --learned --push "$push" --target_probability 1
  done
}

python -m jtextdiff.train --config "$configs/autoregressive.py" --workdir "$out/judge" --config.text.path="$data/judge" \
  --config.text.tokenizer=byte_pairs:4000 --config.text.length=48 --config.num_steps=1500 --config.seed=7 \
  --config.method.trunk.dropout=0.1

size=(--config.method.latent_dim=128 --config.method.encoder.num_layers=4 --config.method.decoder.num_layers=4)
model levels della.py
size+=(--config.method.pooling_heads=16)
model single latent_ops.py:reviews_zh "${size[@]}"
model single-more-nats latent_ops.py:reviews_zh "${size[@]}" --config.method.beta=0.15 --config.method.beta_first=0.05
train cvae latent_ops.py:cvae whole $((steps * 3 / 8)) "${size[@]}" --config.method.condition="$label"
edit cvae label all

for p in 0.97 0.99; do
  edit single-more-nats-200 words "$p" --no-minimal --word_guidance 2 --word_hold 1 --target_probability "$p"
done
for run in levels-200 single-more-nats-200; do
  for p in 0.8 0.9 0.97; do
    edit $run minimal "$p" --target_probability "$p"
    edit $run rerank "$p" --rerank --target_probability "$p"
  done
done

run=levels-all
for velocity in shift normal network; do
  along $run $velocity 0.5 1 1.5 2
done
for p in 0.5 0.9 0.99 0.999; do
  [ -s "$out/edits/$run-network+energy.$p.json" ] && continue
  field $run network
  edit $run network+energy "$p" "${unguided[@]}" --learned --max_time 100 --target_probability "$p"
done

bleu=(--at_bleu 20 --at_bleu 25 --at_bleu 30 --at_bleu 40)
for kind in 200 all; do
  python -m jtextdiff.compare "$out"/edits/*-$kind-energy.*.json "${bleu[@]}"
done
python -m jtextdiff.compare "$out"/edits/{levels,single-more-nats}-200-*.json "$out"/edits/cvae-*.json "${bleu[@]}"
python -m jtextdiff.compare "$out"/edits/$run-*.json "${bleu[@]}"
