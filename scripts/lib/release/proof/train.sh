#!/bin/sh
# The same as train.py with nothing but a shell.
set -eu
step=0 total=0 asked=''
trap 'asked=1' USR1
if [ -n "${NEMO_RESUME_FROM:-}" ]; then
  step=${NEMO_RESUME_FROM##*-} total=$(cat "$NEMO_RESUME_FROM/total")
fi
start=$step
while [ "$step" -lt 30 ]; do
  step=$((step + 1)) total=$((total + step))
  if [ "$step" = 10 ]; then
    nemo-slurm preempt @
    while [ -z "$asked" ]; do sleep 0.05; done
  fi
  if [ -n "$asked" ]; then
    mkdir "$NEMO_CHECKPOINT_DIR/.tmp"
    echo "$total" >"$NEMO_CHECKPOINT_DIR/.tmp/total"
    mv "$NEMO_CHECKPOINT_DIR/.tmp" "$NEMO_CHECKPOINT_DIR/step-$step"
    exit 75
  fi
done
echo "from step $start: total $total"
