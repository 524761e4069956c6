# Sourced by what builds emulated kernels: kernels/cuda as g++ takes it, in $out/cuda/in. $tests is test/cuda, $kernels
# the folder of that name.
mkdir -p "$out/cuda/in"
for file in "$kernels"/cuda/*.cuh "$kernels"/cuda/*.cu "$kernels"/cuda/params.h "$kernels"/cuda/scales.h \
    "$kernels"/cuda/layout.h "$kernels"/cuda/instances.h; do
  sed -e 's/^ *extern __shared__.*$//' -e 's/__shared__/static/' "$file" > "$out/cuda/in/$(basename "$file")"
done
sed "s#\.\./emulator\.h#$tests/emulator.h#" "$tests/emulated/mma.cuh" > "$out/cuda/in/mma.cuh"
