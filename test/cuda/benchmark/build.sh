#!/bin/sh
# A libcuda.so whose device is the CPU and whose kernels are those of kernels/cuda, by g++ alone:
# test/cuda/benchmark/build.sh <folder>
set -e
here=$(cd "$(dirname "$0")" && pwd)
tests=$(dirname "$here")
kernels=$tests/../../kernels
out=$1
. "$tests/emulated/sources.sh"
flags="-std=c++20 -O2 -fPIC -mf16c -mfma -w"
for file in "$out"/cuda/in/*.cu; do
  object=$out/$(basename "$file" .cu).o
  if [ ! -e "$object" ] || [ -n "$(find "$kernels/cuda" "$tests" -newer "$object" -type f -print -quit)" ]; then
    g++ $flags -fpermissive -include "$tests/emulator.h" -D__CUDACC__ -x c++ -c "$file" -o "$object"
  fi
done
# These are those of emulated_launch.cc.
queued=
for name in cuLaunchKernel cuMemsetD8Async cuEventRecord cuEventSynchronize; do queued="$queued -D$name=${name}Queued"; done
g++ $flags -c "$tests/emulator.cc" -o "$out/emulator.o"
g++ $flags -I"$kernels" $queued -c "$tests/fake_libcuda.cc" -o "$out/fake_libcuda.o"
g++ $flags -I"$kernels" -c "$here/emulated_launch.cc" -o "$out/emulated_launch.o"
g++ -shared "$out"/*.o -o "$out/libcuda.so" -ldl -lpthread
