#!/bin/sh
# ./run [--compute=float32,…] [--seeds=0,1,2] [--grid=N] [options of runner]: makes the calls, then runs them as tensors
# on the device, and from the host's memory whole and in pieces. Leaves ${OUT:-out}/cuda.json, a line for each run.
# Fails where any of them does.
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
types=float32,tensorfloat32,float16,bfloat16
seeds=0
grid=0
for argument; do
  shift
  case $argument in
    --compute=*) types=${argument#*=} ;;
    --seeds=*) seeds=${argument#*=} ;;
    --grid=*) grid=${argument#*=} ;;
    *) set -- "$@" "$argument" ;;
  esac
done
mkdir -p "$out" "$here/calls"
list() { echo "$1" | tr ',' ' '; }

# The float64 references take a core for half a minute each: all at once.
for type in $(list "$types"); do
  for seed in $(list "$seeds"); do
    file=$here/calls/$type.$seed.bin
    [ -e "$file" ] || ("$here/node" "$here/dump_cases.mjs" "$file.partial" "$grid" "$type" "$seed" > "$file.log" 2>&1 &&
      mv "$file.partial" "$file" || echo "FAILED  $file: $(tail -n 3 "$file.log")") &
  done
done
wait

failed=0
"$here/runner" || failed=1
for type in $(list "$types"); do
  for seed in $(list "$seeds"); do
    for way in --way=device --way=host "--way=host --pieces=4"; do
      echo "== $type, seed $seed, $way"
      # shellcheck disable=SC2086 # two options
      "$here/runner" --compute="$type" $way --json="$out/cuda.json" "$@" "$here/calls/$type.$seed.bin" || failed=1
    done
  done
done
if [ "$failed" = 0 ]; then echo "all passed, commit $(cat "$here/commit")"; else echo "FAILED, commit $(cat "$here/commit")"; fi
exit "$failed"
