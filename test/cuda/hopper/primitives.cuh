// The products that the Hopper kernels are made of, one by one on the device, on small whole numbers whose sums are
// exact: TMA's swizzle, matrix descriptors, who holds which accumulator. Where a kernel is wrong this says whether the
// layouts are.
#pragma once

#include "problem.h"

namespace {

enum class Product { rows, registers };

struct ProductMaps {
  TensorMap a, b;
};

/** One product of a warpgroup; `group` is which 64 rows of A it takes. Writes C [64][N]. */
template <typename T, Product KIND, int N, int DEPTH, int A_ROWS>
__global__ void __launch_bounds__(128, 1) run_product(const __grid_constant__ ProductMaps maps, int group, float* c) {
  constexpr bool B_TURNED = KIND == Product::registers;
  // Whole panels come, whatever their columns.
  constexpr int A_WIDE = (DEPTH + 63) / 64 * 64;
  constexpr int B_COLUMNS = B_TURNED ? N : DEPTH, B_HEIGHT = B_TURNED ? DEPTH : N;
  constexpr int B_WIDE = (B_COLUMNS + 63) / 64 * 64;
  const uint32_t shared = shared_start();
  const uint32_t b_at = shared + tile_bytes(A_ROWS, A_WIDE), barrier = b_at + tile_bytes(B_HEIGHT, B_WIDE);
  if (threadIdx.x == 0) {
    start_barrier(barrier, 1);
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    arrive_expecting(barrier, tile_bytes(A_ROWS, A_WIDE) + tile_bytes(B_HEIGHT, B_WIDE));
    load_tile<A_ROWS, A_WIDE>(shared, &maps.a, barrier, 0, 0);
    load_tile<B_HEIGHT, B_WIDE>(b_at, &maps.b, barrier, 0, 0);
  }
  wait(barrier, 0);
  float sums[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    sums[i] = 0;
  }
  const uint32_t a_at = shared + group * GROUP_ROWS * PANEL_ROW_BYTES;
  if constexpr (KIND == Product::registers) {
    uint32_t a[DEPTH / 4];
#pragma unroll
    for (int i = 0; i < DEPTH / 4; i++) {
      a[i] = load_word(shared + tile_byte(A_ROWS, group * GROUP_ROWS + operand_row(threadIdx.x, i % 4),
                                          i / 4 * STEP + operand_column(threadIdx.x, i % 4, 0)));
    }
    begin_products();
    multiply_columns<T, N, DEPTH>(sums, a, b_at, true);
    commit_products();
    await_products<0>();
  } else {
    begin_products();
    multiply_rows<T, N, DEPTH, A_ROWS>(sums, a_at, b_at);
    commit_products();
    await_products<0>();
  }
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    c[accumulator_row(threadIdx.x, i) * N + accumulator_column(threadIdx.x, i)] = sums[i];
  }
}

template <typename T, Product KIND, int N, int DEPTH, int A_ROWS>
bool check_product(const char* name) {
  constexpr bool IS_BF16 = std::is_same<T, Bfloat16>::value;
  constexpr bool B_TURNED = KIND == Product::registers;
  // Whole panels come, whatever their columns.
  constexpr int A_WIDE = (DEPTH + 63) / 64 * 64;
  constexpr int B_COLUMNS = B_TURNED ? N : DEPTH, B_HEIGHT = B_TURNED ? DEPTH : N;
  constexpr int B_WIDE = (B_COLUMNS + 63) / 64 * 64;
  const int bytes = tile_bytes(A_ROWS, A_WIDE) + tile_bytes(B_HEIGHT, B_WIDE) + 8 + SWIZZLE_BYTES;
  std::mt19937 random(5);
  std::vector<int> a(A_ROWS * A_WIDE), b(B_HEIGHT * B_WIDE);
  const auto operand = [&](std::vector<int>& numbers) {
    std::vector<uint16_t> bits;
    for (int& x : numbers) {
      x = static_cast<int>(random() % 9) - 4;
      bits.push_back(IS_BF16 ? to_bfloat16(static_cast<float>(x)) : to_float16(static_cast<float>(x)));
    }
    return upload(bits);
  };
  uint16_t *a16 = operand(a), *b16 = operand(b);
  ProductMaps maps;
  if (encode_tensor_map(device_encoder(), &maps.a, a16, tensor_map_fields(IS_BF16, 1, A_ROWS, A_WIDE, A_ROWS)) ||
      encode_tensor_map(device_encoder(), &maps.b, b16, tensor_map_fields(IS_BF16, 1, B_HEIGHT, B_WIDE, B_HEIGHT))) {
    std::printf("%s: no tensor map\n", name);
    return false;
  }
  const auto kernel = run_product<T, KIND, N, DEPTH, A_ROWS>;
  OK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  bool holds = true;
  for (int group = 0; group < A_ROWS / 64; group++) {
    float* c = poisoned(64 * N);
    kernel<<<1, 128, bytes>>>(maps, group, c);
    await_device(name);
    std::vector<double> exact(64 * N, 0);
    for (int i = 0; i < 64; i++) {
      for (int j = 0; j < N; j++) {
        for (int k = 0; k < DEPTH; k++) {
          exact[i * N + j] += a[(group * 64 + i) * A_WIDE + k] *
              b[B_TURNED ? k * B_WIDE + j : j * DEPTH + k];
        }
      }
    }
    Verdict verdict;
    compare(verdict, name, download(c, 64 * N), exact, 64, 1, N, 1e-9);
    if (!verdict.holds()) {
      std::printf("product%s group %d\n", verdict.words.c_str(), group);
      holds = false;
    }
    device_free(c);
  }
  device_free(a16);
  device_free(b16);
  return holds;
}

#define PRODUCT(TYPE, KIND, ...) check_product<TYPE, Product::KIND, __VA_ARGS__>(#TYPE " " #KIND " <" #__VA_ARGS__ ">")
#define PRODUCTS(KIND, ...) wrong += !PRODUCT(Bfloat16, KIND, __VA_ARGS__) + !PRODUCT(Float16, KIND, __VA_ARGS__)

/** N, depth, rows of A's tile. */
int check_products() {
  int wrong = 0;
  PRODUCTS(rows, 128, 64, 192);
  PRODUCTS(rows, 128, 128, 128);
  PRODUCTS(rows, 64, 256, 128);
  PRODUCTS(rows, 64, 64, 128);
  PRODUCTS(registers, 64, 64, 64);
  PRODUCTS(registers, 64, 96, 64);
  PRODUCTS(registers, 128, 64, 128);
  PRODUCTS(registers, 128, 128, 128);
  PRODUCTS(registers, 256, 64, 64);
  return wrong;
}

}  // namespace
