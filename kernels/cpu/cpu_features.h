// What this CPU and its system can run.
#pragma once

namespace flash_attention {

/** x86-64-v3: AVX2, FMA, BMI and what goes with them; and that the system keeps the registers. */
bool cpu_has_avx2();

/** x86-64-v4: AVX-512 F, BW, CD, DQ and VL besides. */
bool cpu_has_avx512();

}  // namespace flash_attention
