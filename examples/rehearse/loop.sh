#!/usr/bin/env bash
# Bash: a loop over a number, which a file keeps. The argument says what it does wrong.
fault=${1:-none} asked=
[ "$fault" = deaf ] || trap 'asked=1' USR1 TERM
step=0 value=1
if [ -n "$NEMO_RESUME_FROM" ]; then read -r step value <"$NEMO_RESUME_FROM"; fi
save() {
  echo "$step $value" >"$NEMO_CHECKPOINT_DIR/.tmp"
  mv "$NEMO_CHECKPOINT_DIR/.tmp" "$NEMO_CHECKPOINT_DIR/step-$step.txt"
}
while ((step < 60)); do
  value=$(((value * 1103515245 + 12345) % 2147483648))
  ((step += 1))
  echo "step $step loss: $value"
  if ((step % 10 == 0)) || [ -n "$asked" ]; then save; fi
  if [ -n "$asked" ] && ((step < 60)); then
    if [ "$fault" = code ]; then exit 0; fi
    exit 75
  fi
  sleep 0.03
done
echo "$value" >"$NEMO_DIR/artifacts/value.txt"
