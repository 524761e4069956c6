#pragma once

#include "../cuda/pieces.h"
#include "description.h"

namespace flash_attention {

/** A call as the kernels for devices take it. */
inline HostCall host_call(const Description& d, const Memory& memory, const Memory& results) {
  HostCall call;
  call.problem = d.problem;
  call.tensors = tensors_of(d, memory);
  call.is_backward = d.kind == CallKind::backward;
  if (call.is_backward) {
    call.inputs = backward_inputs_of(d, memory);
    call.gradients = gradients_of(d, results);
  } else {
    call.outputs = {static_cast<float*>(results.data[OUTPUT]), static_cast<float*>(results.data[LSE]),
                    static_cast<float*>(results.data[LSE_TAIL])};
  }
  return call;
}

}  // namespace flash_attention
