#!/bin/sh
# ./run [--compute=float32,…] [--seeds=0,1,2] [--ways=device,host,pieces,tensorflow] [--families=mma,hopper] [--grid=N]
# [options of runner]: makes the calls, then runs them as tensors on the device, from the host's memory whole and in
# pieces, and as ops of a fake TensorFlow's GPU; 16-bit compute types on the device by each family of kernels, else by
# those that are chosen. Leaves in ${OUT:-out} cuda.json, a line for each run, and every failure in *.log; shows some of
# them. Fails where any of them does.
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
types=float32,tensorfloat32,float16,bfloat16
seeds=0
ways=device,host,pieces,tensorflow
families=mma,hopper
grid=0
show=
for argument; do
  shift
  case $argument in
    --compute=*) types=${argument#*=} ;;
    --seeds=*) seeds=${argument#*=} ;;
    --ways=*) ways=${argument#*=} ;;
    --families=*) families=${argument#*=} ;;
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
    host) options="--way=host --show=$of_host" ;;
    pieces) options="--way=host --pieces=4 --show=$of_host" ;;
    tensorflow) options="--way=tensorflow --show=$of_host" ;;
    *) echo "there is no way $way"; exit 2 ;;
  esac
  for type in $(list "$types"); do
    case $way-$type in
      device-*float16) by=$families ;;
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
if [ "$failed" = 0 ]; then echo "all passed, commit $(cat "$here/commit")"; else echo "FAILED, commit $(cat "$here/commit")"; fi
exit "$failed"
