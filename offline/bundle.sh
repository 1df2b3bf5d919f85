#!/usr/bin/env bash
# Makes scenes, extracts their features and trains the networks on a machine without network, with all its cores
# and the GPU when there is one. It needs Python with numpy, scipy and torch; the rest lies in wheels/.
#
#   MINUTES=30 SCENES=300 OUT=out bash run.sh
#
# MINUTES            for everything; synthesis gets a quarter, training what is left          30
# SCENES             one-minute scenes to train with                                          300
# VALIDATION_SCENES  one-minute scenes to choose the best weights by                          40
# PRESET             features and networks: compact or paper                                  compact
# RECIPE             training: compact or report                                              as PRESET
# TASKS              trained side by side                                                     sad sed doae
# EPOCHS             at most; the recipe says it otherwise
# SEED               of scenes and training                                                   1
# WORKERS            processes that make scenes and features                                  one for each core
# OUT                TASK/best.safetensors, TASK/snapshot-*, TASK/last.pt (in parts last.pt.aa ... beyond 15 MiB), logs.tar.gz   out
# WORK               scenes, features, runs; what is there is used again                      /tmp/seldrt-work
# PYTHON             python3
#
# A run goes on from runs/TASK/last.pt, or begins with the weights of runs/TASK/best.safetensors, if they are here.
set -euo pipefail

bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MINUTES=${MINUTES:-30} SCENES=${SCENES:-300} VALIDATION_SCENES=${VALIDATION_SCENES:-40}
PRESET=${PRESET:-compact} TASKS=${TASKS:-sad sed doae} SEED=${SEED:-1}
OUT=$(realpath -m "${OUT:-out}") WORK=$(realpath -ms "${WORK:-${TMPDIR:-/tmp}/seldrt-work}")
PYTHON=${PYTHON:-python3}
RECIPE=${RECIPE:-$([ "$PRESET" = paper ] && echo report || echo compact)}
mkdir -p -m 700 "$WORK"
if ! [ -O "$WORK" ] || [ "$(stat -c %u "$WORK")" != "$EUID" ]; then # the first is about where a link leads
  echo "WORK $WORK is a folder of somebody else: give another one" >&2 && exit 1
fi
mkdir -p "$OUT" "$WORK/logs"
cores=$("$PYTHON" -c "import os; print(len(os.sched_getaffinity(0)))")
WORKERS=${WORKERS:-$cores}
began=$(date +%s)

say() { echo "$(($(date +%s) - began)) s: $*" | tee -a "$WORK/logs/run.log"; }

left() { # minutes that remain, less $1, but not more than the share $2 of all
  "$PYTHON" -c "import time; print(f'{max(0, min($MINUTES - (time.time() - $began) / 60 - $1, $MINUTES * $2)):.2f}')"
}

step() { # name, command...: its output goes to a log
  local log="$WORK/logs/$1.log"
  shift
  "$@" >"$log" 2>&1 || { say "failed: $*" && tail -n 5 "$log" && exit 1; }
}

offline() { "$PYTHON" -m offline.cli "$@"; }

trainings=()
collect() {
  kill "${trainings[@]}" 2>/dev/null || true
  for task in $TASKS; do
    local run="$WORK/runs/$task" to="$OUT/$task"
    mkdir -p "$to" && rm -f "$to"/last.pt*
    if [ -e "$run/best.safetensors" ]; then cp "$run/best.safetensors" "$to"; fi
    if [ -e "$run/last.pt" ]; then
      if [ "$(stat -c %s "$run/last.pt")" -le $((15 << 20)) ]; then cp "$run/last.pt" "$to"
      else split -b 15M "$run/last.pt" "$to/last.pt."; fi
    fi
    find "$run" -name 'snapshot-*.safetensors' -exec cp {} "$to" \; 2>/dev/null || true
    if [ -e "$run/log.jsonl" ]; then cp "$run/log.jsonl" "$WORK/logs/$task.jsonl"; fi
  done
  tar czf "$OUT/logs.tar.gz" -C "$WORK" logs
}
trap collect EXIT
trap 'exit 143' TERM INT

if compgen -G "$bundle/wheels/*.whl" >/dev/null; then
  step wheels "$PYTHON" -m pip install --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --disable-pip-version-check --target "$WORK/site" "$bundle"/wheels/*.whl
fi
export PYTHONPATH="$bundle/sources:$WORK/site" PYTHONDONTWRITEBYTECODE=1
device=$("$PYTHON" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')")
config=()
if [ -e "$bundle/config.toml" ]; then config=(--config "$bundle/config.toml"); fi
say "$cores cores, $device; $MINUTES minutes, $SCENES scenes, preset $PRESET, recipe $RECIPE"

synthesize() { # split, fold, scenes, share of the minutes
  step "synthesize-$1" offline synthesize --events "$bundle/sounds/$1" --out "$WORK/$1" --fold "$2" --seed "$SEED" \
    --scenes "$3" --workers "$WORKERS" --time-budget "$(left 1 "$4")" "${config[@]}"
  say "$(tail -n 1 "$WORK/logs/synthesize-$1.log")"
}

extract() { # split
  step "extract-$1" offline extract --data "$WORK/$1" --out "$WORK/$1.store" --preset "$PRESET" \
    --workers "$WORKERS" "${config[@]}"
  say "features of $1: $(du -sh "$WORK/$1.store" | cut -f1)"
}

synthesize val 1 "$VALIDATION_SCENES" 0.1
synthesize train 2 "$SCENES" 0.25
extract val
extract train

budget=$(left 0.5 1)
say "training for $budget minutes: $TASKS"
for task in $TASKS; do
  run="$WORK/runs/$task" brought="$bundle/runs/$task" begin=(--preset "$PRESET")
  mkdir -p "$run"
  if [ ! -e "$run/last.pt" ] && [ -d "$brought" ]; then
    cp "$brought"/* "$run"
    if [ -e "$run/last.pt.aa" ]; then cat "$run"/last.pt.?? >"$run/last.pt" && rm "$run"/last.pt.??; fi
  fi
  if [ -e "$run/last.pt" ]; then begin+=(--resume --other-stores)
  elif [ -e "$run/best.safetensors" ]; then begin=(--start "$run/best.safetensors"); fi
  offline train "$task" --store "$WORK/train.store" --validation "$WORK/val.store" --out "$run" \
    --recipe "$RECIPE" --seed "$SEED" --device "$device" --threads $((cores > 3 ? cores / 3 : 1)) \
    --time-budget "$budget" ${EPOCHS:+--epochs "$EPOCHS"} "${begin[@]}" "${config[@]}" >"$WORK/logs/$task.log" 2>&1 &
  trainings+=($!)
done

failed=0
for training in "${trainings[@]}"; do wait "$training" || failed=1; done
trainings=()
for task in $TASKS; do say "$task: $(tail -n 1 "$WORK/logs/$task.log")"; done
for task in $TASKS; do if [ -e "$WORK/runs/$task/log.jsonl" ]; then tail -n 1 "$WORK/runs/$task/log.jsonl"; fi; done
exit $failed
