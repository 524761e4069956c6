#!/bin/sh
# Builds the emulated kernels and their test with g++ alone: test/cuda/build.sh <folder>
set -e
here=$(cd "$(dirname "$0")" && pwd)
kernels=$here/../../kernels
out=$1
tests=$here
. "$tests/emulated/sources.sh"
flags="-std=c++20 -O2 -mf16c -mfma -fpermissive -w -include $here/emulator.h -D__CUDACC__"
for file in "$out"/cuda/in/*.cu; do
  object=$out/$(basename "$file" .cu).o
  if [ ! -e "$object" ] || [ -n "$(find "$out/cuda/in" "$here" -newer "$object" -print -quit)" ]; then
    g++ $flags -x c++ -c "$file" -o "$object"
  fi
done
g++ -std=c++20 -O2 -mf16c -c "$here/emulator.cc" -o "$out/emulator.o"
for file in "$kernels"/cuda/plan.cc "$kernels"/cuda/hopper/*.cc; do
  g++ -std=c++20 -O1 -c "$file" -o "$out/plan_$(basename "$file" .cc).o"
done
g++ -std=c++17 -O2 -w -Wno-psabi -fPIC -shared -fvisibility=hidden "$here/emulated_hopper.cc" "$kernels"/cuda/hopper/*.cc \
  -o "$out/libemulated_hopper.so"
for file in "$kernels"/cpu/*.cc; do
  case $(basename "$file") in
    isa_avx2.cc) extra="-mavx2 -mfma" ;;
    isa_avx512.cc) extra="-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma" ;;
    *) extra= ;;
  esac
  object=$out/cpu_$(basename "$file" .cc).o
  [ -e "$object" ] || g++ -std=c++17 -O2 $extra -w -c "$file" -o "$object"
done
g++ -std=c++20 -O1 -I"$kernels/cuda" -c "$here/emulate_test.cc" -o "$out/emulate_test.o"
hopper="-L$out -lemulated_hopper -Wl,-rpath,$(cd "$out" && pwd)"
g++ -rdynamic "$out"/*.o $hopper -o "$out/emulate_test" -ldl -lpthread
# The runner for devices on emulated kernels: FAKE_CUDA=major=8 (or 9, for those of Hopper)
# FLASH_ATTENTION_LIBCUDA=<folder>/fake_libcuda.so
includes="-I$kernels -I$here/.. -I$here"
g++ -std=c++17 -O1 -w -shared -fPIC $includes "$here/fake_libcuda.cc" -o "$out/fake_libcuda.so" -ldl
mkdir -p "$out/runner"
addon=$kernels/addon
for file in "$kernels"/cuda/*.cc "$kernels"/cuda/hopper/*.cc "$addon/check_strides.cc" "$addon/description.cc" \
    "$addon/device_kernels.cc" "$addon/run_call.cc" "$addon/tensorflow_gpu_call.cc" "$here/runner.cc" \
    "$here/emulated_device.cc"; do
  g++ -std=c++20 -O1 -w $includes -c "$file" -o "$out/runner/$(basename "$file" .cc).o"
done
# shellcheck disable=SC2046 # several files
g++ -rdynamic "$out"/runner/*.o $(ls "$out"/*.o | grep -v -e /plan_ -e /emulate_test.o) $hopper \
  -o "$out/emulated_runner" -ldl -lpthread
for test in layout plan; do
  g++ -std=c++17 -Wall -Wextra -O1 -I"$kernels/cuda" "$here/${test}_test.cc" "$out"/plan_*.o -o "$out/${test}_test"
done
for test in layouts order pipeline; do
  g++ -std=c++17 -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi -O2 "$here/hopper/${test}_test.cc" \
    "$kernels/cuda/hopper/tensor_map.cc" -o "$out/hopper_${test}_test"
done
