#!/bin/sh
# ./run [--compute=float32,…] [--seeds=0,1,2] [--ways=device,any_order,host,pieces,tensorflow] [--families=mma,hopper]
# [--grid=N] [options of runner]: makes the calls, then runs them as tensors on the device, there also as if deterministic:
# false were asked for, from the host's memory whole and in pieces, and as ops of a fake TensorFlow's GPU; compute types
# that both families of kernels know on the device by each, else by those that are chosen. Leaves in ${OUT:-out} cuda.json,
# a line for each run, and every failure in *.log; shows some of
# them. Then, where asked for:
#   --soak=N    all calls of float32 N times more (393 calls a time): memory must stay what it was; and by two processes
#               at once
#   --sanitize  a call of every set of kernels under compute-sanitizer: memcheck, initcheck, and for mma.sync racecheck
#   --bench[=S] benchmark/compare.py, in S seconds: beside PyTorch, which must be there
# Fails where any of them does.
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
types=float32,tensorfloat32,float16,bfloat16
seeds=0
ways=device,any_order,host,pieces,tensorflow
families=mma,hopper
grid=0
show=
soak=
sanitize=
bench=
for argument; do
  shift
  case $argument in
    --compute=*) types=${argument#*=} ;;
    --seeds=*) seeds=${argument#*=} ;;
    --ways=*) ways=${argument#*=} ;;
    --families=*) families=${argument#*=} ;;
    --soak=*) soak=${argument#*=} ;;
    --sanitize) sanitize=1 ;;
    --bench) bench=540 ;;
    --bench=*) bench=${argument#*=} ;;
    --grid=*) grid=${argument#*=} ;;
    --show=*) show=${argument#*=} ;;
    *) set -- "$@" "$argument" ;;
  esac
done
mkdir -p "$out" "$here/calls"
list() { echo "$1" | tr ',' ' '; }
count() { list "$1" | wc -w; }
# What is shown of all together should fit a page or two.
sets=$(($(count "$types") * $(count "$seeds")))
of_device=${show:-$((25 / sets > 4 ? 25 / sets : 4))}
of_host=${show:-$((8 / sets > 2 ? 8 / sets : 2))}

# The float64 references take a core for half a minute each: all at once.
start=$(date +%s)
for type in $(list "$types"); do
  for seed in $(list "$seeds"); do
    file=$here/calls/$type.$seed.$grid.bin
    [ -e "$file" ] || ("$here/node" "$here/dump_cases.mjs" "$file.partial" "$grid" "$type" "$seed" > "$file.log" 2>&1 &&
      mv "$file.partial" "$file" || echo "FAILED  $file: $(tail -n 3 "$file.log")") &
  done
done
wait
echo "calls made in $(($(date +%s) - start)) s"

failed=0
for way in $(list "$ways"); do
  case $way in
    device) options="--way=device --show=$of_device" ;;
    any_order) options="--way=device --any-order --show=$of_device" ;;
    host) options="--way=host --show=$of_host" ;;
    pieces) options="--way=host --pieces=4 --show=$of_host" ;;
    tensorflow) options="--way=tensorflow --show=$of_host" ;;
    *) echo "there is no way $way"; exit 2 ;;
  esac
  for type in $(list "$types"); do
    case $way-$type in
      any_order-float32) by= ;;
      any_order-*) by=hopper ;;
      device-float32) by=chosen ;;
      device-*) by=$families ;;
      *) by=chosen ;;
    esac
    for family in $(list "$by"); do
      for seed in $(list "$seeds"); do
        echo "== $type by kernels $family, seed $seed, $way"
        # shellcheck disable=SC2086 # several options
        "$here/runner" --compute="$type" --family="${family#chosen}" $options --json="$out/cuda.json" \
          --log="$out/$type.$family.$seed.$way.log" "$@" "$here/calls/$type.$seed.$grid.bin" || failed=1
      done
    done
  done
done
seed=$(list "$seeds" | head -n 1)
calls() { echo "$here/calls/$1.$seed.$grid.bin"; }
if [ -n "$soak" ]; then
  echo "== soak"
  "$here/runner" --compute=float32 --soak="$soak" --limit=400 "$(calls float32)" > "$out/soak.log" 2>&1 || failed=1
  grep -E "again:|FAILED" "$out/soak.log"
  echo "== two processes at once"
  for n in 1 2; do
    ("$here/runner" --compute=float32 --soak=2 --limit=200 "$(calls float32)" > "$out/process_$n.log" 2>&1 ||
      touch "$out/process_failed") &
  done
  wait
  grep -hE "again:|FAILED" "$out"/process_?.log
  [ ! -e "$out/process_failed" ] || failed=1
fi
if [ -n "$sanitize" ]; then
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  for type in $(list "$types"); do
    for tool in memcheck initcheck racecheck; do
      case $type-$tool in
        float32-*) by=chosen ;;
        *-racecheck) by=mma ;;
        *) by=$families ;;
      esac
      for family in $(list "$by"); do
        (log="$out/$tool.$type.$family.log"
          "$sanitizer" --tool "$tool" --target-processes all --error-exitcode 3 "$here/runner" --compute="$type" \
            --family="${family#chosen}" --each=2 --groups --deadline=200 --limit=300 "$(calls "$type")" > "$log" 2>&1 ||
            echo "exit $?" >> "$log"
          echo "$tool, $type by kernels $family: $(grep -cE '^ *[0-9]+ of +[0-9]+ failed' "$log") sets of kernels," \
            "$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY|^exit' "$log" | tr '\n' ' ')") &
      done
    done
  done
  wait
  if grep -lE "^exit" "$out"/*check.*.log; then failed=1; fi
fi
if [ -n "$bench" ]; then
  python3 "$here/benchmark/compare.py" --seconds="$bench" --out="$out" || failed=1
fi
if [ "$failed" = 0 ]; then echo "all passed, commit $(cat "$here/commit")"; else echo "FAILED, commit $(cat "$here/commit")"; fi
exit "$failed"
