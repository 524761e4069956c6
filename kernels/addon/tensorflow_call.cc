#include "tensorflow_call.h"

#include "device_call.h"
#include "run_call.h"
#include "tensorflow_run.h"

namespace flash_attention {

void attention_on_cpu(const TensorFlowApi& api, TF_OpKernelContext* context) {
  guarded(api, context, [&] {
    Run run(api, context);
    run.read(false);
    const Memory results = run.allocate_results();
    TemporaryTensors workspace(api, context, TemporaryTensors::Place::host);
    Run::require(run_on_chosen_device(run.description, run.memory, results, workspace), TF_INTERNAL_CODE);
    call_counts().tensorflow++;
  });
}

void append_on_cpu(const TensorFlowApi& api, TF_OpKernelContext* context) {
  guarded(api, context, [&] {
    Run run(api, context);
    run.read(true);
    run_append(run.description, run.memory);
    call_counts().tensorflow++;
  });
}

}  // namespace flash_attention
