#!/usr/bin/env bash
# Scores a model's samples at several temperatures: one curve of a frontier. Finished rows are skipped.
#
#   launch/frontier.sh OUT NAME RUN [FLAG …]
#
# FLAGs are those of jtextdiff.evaluate, such as --sampler remasking or --steps 16; other texts than the embedded
# grammar's need --judge RUN. Several NAMEs in one OUT share a picture:
# python -m jtextdiff.compare OUT/*.json --frontier OUT/frontier.png
set -euo pipefail
out=${1:?OUT, a folder} name=${2:?NAME, a name for the curve, without dots} run=${3:?RUN, a run directory}
shift 3
case $name in *.*) echo "NAME is $name; expected one without dots, such as masked-16" >&2; exit 2 ;; esac
mkdir -p "$out"
for temperature in 0.7 0.8 0.9 1 1.1 1.2; do
  file="$out/$name.T$temperature.json"
  [ -s "$file" ] && continue
  python -m jtextdiff.evaluate --checkpoint "$run" --override method.sampler.temperature=$temperature "$@" --out "$file.part"
  mv "$file.part" "$file"
done
python -m jtextdiff.compare "$out/$name".*.json --frontier "$out/$name.png"
