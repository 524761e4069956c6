// Float32 products on tensor cores by pieces of operands: which way is fastest, and how exact is each? Products of
// mma.sync of registers only, and dot products of 128 normal numbers against float64. By hand:
//   nvcc -std=c++17 -O3 -arch=sm_90a benchmarks/cuda/split_products.cu -o build/split_products && build/split_products
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

constexpr int DEPTH = 128, TILES = 4, THREADS = 256, ROUNDS = 4096;

#define MMA(SHAPE, TYPE, C, A, B)                                                                                \
  asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPE "." TYPE                                          \
               ".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                                        \
               : "+f"(C[0]), "+f"(C[1]), "+f"(C[2]), "+f"(C[3])                                                  \
               : "r"((A)[0]), "r"((A)[1]), "r"((A)[2]), "r"((A)[3]), "r"((B)[0]), "r"((B)[1]))

/** COUNT pieces of 16 bits of operands 16 deep: products of all pairs whose places sum to less than COUNT. */
template <typename Piece, int COUNT>
struct Halves {
  static constexpr bool IS_F16 = std::is_same<Piece, __half>::value;
  // f16 has few exponents: the largest number comes near 2^15, as in the kernels.
  static constexpr float SCALE = IS_F16 ? 4096 : 1;
  union { Piece a[COUNT][8]; uint32_t left[COUNT][4]; };
  union { Piece b[COUNT][4]; uint32_t right[COUNT][2]; };
  __device__ Halves() {}
  /** x: row g, then g + 8, columns 2t, 2t + 1; then the same, columns + 8. y: 2t, 2t + 1, 2t + 8, 2t + 9 of column g. */
  __device__ void split(const float (&x)[8], const float (&y)[4]) {
    for (int i = 0; i < 12; i++) {
      float rest = SCALE * (i < 8 ? x[i & 7] : y[i & 3]);
      for (int piece = 0; piece < COUNT; piece++) {
        const Piece rounded = (i < 8 ? a[piece][i & 7] : b[piece][i & 3]) = Piece(rest);
        rest -= float(rounded);
      }
    }
  }
  /** Small products into an accumulator of their own: one that is large would cut them off. */
  __device__ void multiply(float (&large)[4], float (&small)[4]) const {
    for (int sum = COUNT - 1; sum >= 0; sum--)
      for (int i = 0; i <= sum; i++)
        if constexpr (IS_F16) MMA("m16n8k16", "f16", (sum ? small : large), left[i], right[sum - i]);
        else MMA("m16n8k16", "bf16", (sum ? small : large), left[i], right[sum - i]);
  }
};

struct Tensorfloat32 {
  static constexpr float SCALE = 1;
  uint32_t a[2][8], b[2][4];
  static __device__ void split_one(float x, uint32_t& high, uint32_t& low) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(high) : "f"(x));
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(low) : "f"(x - __uint_as_float(high)));
  }
  /** The same elements: 8 deep twice, even columns in the place of the first four, odd ones in that of the others. */
  __device__ void split(const float (&x)[8], const float (&y)[4]) {
    const int order[] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (int i = 0; i < 8; i++) split_one(x[order[i]], a[0][i], a[1][i]);
    for (int i = 0; i < 4; i++) split_one(y[i], b[0][i], b[1][i]);
  }
  __device__ void multiply(float (&large)[4], float (&small)[4]) const {
    for (int half = 0; half < 2; half++) {
      MMA("m16n8k8", "tf32", small, a[1] + 4 * half, b[0] + 2 * half);
      MMA("m16n8k8", "tf32", small, a[0] + 4 * half, b[1] + 2 * half);
      MMA("m16n8k8", "tf32", large, a[0] + 4 * half, b[0] + 2 * half);
    }
  }
};

/** C [16][8] of A [16][DEPTH] and B [8][DEPTH] in the first warp, after `rounds` of the first 16 columns in all. */
template <typename Way>
__global__ void __launch_bounds__(THREADS) multiply(const float* a, const float* b, float* c, int rounds) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float large[TILES][4] = {}, small[TILES][4] = {};
  Way way;
  for (int k = 0; k < DEPTH; k += 16) {
    float x[8], y[4];
    for (int i = 0; i < 8; i++) x[i] = a[(g + i / 2 % 2 * 8) * DEPTH + k + 2 * t + i % 2 + i / 4 * 8];
    for (int i = 0; i < 4; i++) y[i] = b[g * DEPTH + k + 2 * t + i % 2 + i / 2 * 8];
    way.split(x, y);
    if (rounds == 0) way.multiply(large[0], small[0]);
  }
  for (int round = 0; round < rounds; round++)
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) way.multiply(large[tile], small[tile]);
  for (int i = 0; i < 4; i++) {
    float sum = 0;
    for (int tile = 0; tile < TILES; tile++) sum += large[tile][i] + small[tile][i];
    if (blockIdx.x == 0 && threadIdx.x < 32) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum / Way::SCALE / Way::SCALE;
    else if (sum == 12345.f) c[0] = sum;
  }
}

template <typename Way>
void measure(const char* name) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  float *a, *b, *c, ms, fastest = INFINITY;
  cudaMallocManaged(&a, 16 * DEPTH * 4), cudaMallocManaged(&b, 8 * DEPTH * 4), cudaMallocManaged(&c, 16 * 8 * 4);
  double squares = 0, plain = 0, all = 0;
  for (int trial = 0; trial < 200; trial++) {
    for (int i = 0; i < 16 * DEPTH; i++) a[i] = normal(random);
    for (int i = 0; i < 8 * DEPTH; i++) b[i] = normal(random);
    multiply<Way><<<1, 32>>>(a, b, c, 0);
    cudaDeviceSynchronize();
    for (int i = 0; i < 16 * 8; i++) {
      double exact = 0;
      float sum = 0;
      for (int k = 0; k < DEPTH; k++) {
        exact += static_cast<double>(a[i / 8 * DEPTH + k]) * b[i % 8 * DEPTH + k];
        sum = std::fma(a[i / 8 * DEPTH + k], b[i % 8 * DEPTH + k], sum);
      }
      squares += (c[i] - exact) * (c[i] - exact), plain += (sum - exact) * (sum - exact), all += exact * exact;
    }
  }
  int processors = 0;
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
  cudaEvent_t start, end;
  cudaEventCreate(&start), cudaEventCreate(&end);
  for (int repeat = 0; repeat < 40; repeat++) {
    cudaEventRecord(start);
    multiply<Way><<<processors * 2, THREADS>>>(a, b, c, ROUNDS);
    cudaEventRecord(end), cudaEventSynchronize(end), cudaEventElapsedTime(&ms, start, end);
    fastest = std::min(fastest, ms);
  }
  const double flops = 2. * 16 * 8 * 16 * TILES * ROUNDS * THREADS / 32 * processors * 2;
  std::printf("%-28s %6.1f TFLOP/s of useful products, error %.2e of the dot products (plain float32: %.2e) %s\n", name,
              flops / fastest / 1e9, std::sqrt(squares / all), std::sqrt(plain / all), cudaGetErrorString(cudaGetLastError()));
}

int main() {
  measure<Halves<__half, 2>>("f16, 2 pieces, 3 products");
  measure<Tensorfloat32>("tf32, 2 pieces, 3 products");
  measure<Halves<__nv_bfloat16, 3>>("bf16, 3 pieces, 6 products");
  measure<Halves<__nv_bfloat16, 2>>("bf16, 2 pieces, 3 products");
}
