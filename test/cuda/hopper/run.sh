#!/usr/bin/env bash
# All that is known of the Hopper kernels, in one call: tests that need no GPU, the compiler's report, which must hold
# no spill, no stack and no serialised wgmma, and where there is a GPU of compute capability 9.0 the kernels checked and
# timed.
#   test/cuda/hopper/run.sh [folder for what is built]
set -euo pipefail
cd "$(dirname "$0")/../../.."
built=${1:-$(mktemp -d)}
mkdir -p "$built"
here=test/cuda/hopper
kernels=kernels/cuda/hopper
target=(-gencode "arch=compute_90a,code=sm_90a" -std=c++17 -O3)

for name in layouts order pipeline kernels; do
  g++ -std=c++17 -O2 -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi -o "$built/$name" \
    "$here/${name}_test.cc" "$kernels"/*.cc
  "$built/$name"
done

if ! command -v nvcc > /dev/null; then
  echo "no nvcc: not compiled for a GPU"
  exit 0
fi
for name in forward_sm90 backward_sm90; do
  nvcc "${target[@]}" -Xptxas -v -cubin -o "$built/$name.cubin" "$kernels/$name.cu" 2> "$built/$name.log"
  if grep -E "C75|[1-9][0-9]* bytes (stack frame|spill)" "$built/$name.log"; then
    echo "$name: the report must be clean"
    exit 1
  fi
  grep -E "Compiling entry|Used" "$built/$name.log"
  if command -v cuobjdump > /dev/null; then
    cuobjdump -sass "$built/$name.cubin" > "$built/$name.sass"
    awk '/Function :/ {name = $3} /HGMMA/ {products[name]++} /UTMALDG/ {loads[name]++}
      /WARPGROUP.DEPBAR/ {waits[name]++}
      /MUFU.EX2/ {powers[name]++} /LDL|STL/ {locals[name]++}
      END {for (n in products) print n ": HGMMA " products[n] ", UTMALDG " loads[n] + 0 ", waits " waits[n] + 0 \
        ", MUFU.EX2 " powers[n] + 0 ", local " locals[n] + 0}' "$built/$name.sass" | sort
  fi
done
# Runs where there is a driver and no toolkit.
nvcc "${target[@]}" -cudart static -Xcompiler -static-libstdc++,-static-libgcc -o "$built/try" "$here/try.cu" \
  "$kernels"/*.cc
if nvidia-smi > /dev/null 2>&1; then
  "$built/try" check
  "$built/try" time
else
  echo "no GPU: built, not run"
fi
