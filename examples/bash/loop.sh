#!/usr/bin/env bash
# Sixty calculations, each from the result of the one before. What is saved are the results so far.
set -euo pipefail
asked=''
trap 'asked=1' USR1 TERM

results=$(mktemp)
[ -z "${NEMO_RESUME_FROM:-}" ] || cp "$NEMO_RESUME_FROM" "$results"

# Under another name first: who sees `step-N` sees it whole.
save() {
  [ -n "${NEMO_CHECKPOINT_DIR:-}" ] || return 0
  cp "$results" "$NEMO_CHECKPOINT_DIR/.tmp"
  mv "$NEMO_CHECKPOINT_DIR/.tmp" "$NEMO_CHECKPOINT_DIR/step-$step"
}

step=$(wc -l <"$results")
while [ "$step" -lt 60 ]; do
  value=$(tail -n 1 "$results")
  value=$(((${value:-1} * 48271 + step) % 2147483647))
  sleep "${PACE:-0.15}" || true # a real calculation takes its time; a signal cuts it short
  echo "$value" >>"$results"
  step=$((step + 1))
  echo "step $step value: $value"
  if [ -n "$asked" ] || [ $((step % 10)) = 0 ]; then save; fi
  if [ -n "$asked" ]; then exit 75; fi
done
cp "$results" "$1"
