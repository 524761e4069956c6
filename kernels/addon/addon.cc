// What JavaScript sees of the addon: registers, and nothing else.
#include "host_call.h"

#include <atomic>
#include <string>

#include "../cpu/attention.h"
#include "../cuda/host_call.h"
#include "description.h"
#include "device_call.h"
#include "run_call.h"
#include "tensorflow_op.h"

namespace flash_attention {
namespace {

constexpr int MOST_THREADS = 1024;

Napi::Value instruction_set_of(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), instruction_set());
}

Napi::Value force(const Napi::CallbackInfo& info) {
  const bool done = info.Length() > 0 && info[0].IsString() &&
                    force_instruction_set(info[0].As<Napi::String>().Utf8Value().c_str());
  return Napi::Boolean::New(info.Env(), done);
}

Napi::Value default_threads_of(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), default_threads());
}

Napi::Value threads_of(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), threads() > 0 ? threads() : default_threads());
}

Napi::Value set_threads_of(const Napi::CallbackInfo& info) {
  const double count = info.Length() > 0 && info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  if (!(count >= 0 && count <= MOST_THREADS) || count != static_cast<int>(count)) {
    return throw_text(info.Env(), "expected an integer from 0 to " + std::to_string(MOST_THREADS) + " for threads");
  }
  set_threads(static_cast<int>(count));
  return info.Env().Undefined();
}

Napi::Value set_device(const Napi::CallbackInfo& info) {
  if (info.Length() < 2 || !info[0].IsString() || !info[1].IsBoolean()) {
    return throw_text(info.Env(), "the addon expects a device's name and whether a CPU may take its place");
  }
  const std::string error =
      choose_device(info[0].As<Napi::String>().Utf8Value(), info[1].As<Napi::Boolean>().Value());
  return error.empty() ? info.Env().Undefined() : throw_text(info.Env(), error);
}

Napi::Value device_of(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), chosen_device()); }

Napi::Value notice_of(const Napi::CallbackInfo& info) {
  const std::string notice = take_notice();
  return notice.empty() ? info.Env().Undefined() : Napi::String::New(info.Env(), notice);
}

Napi::Value cuda_of(const Napi::CallbackInfo& info) {
  const CudaFacts facts = cuda_facts();
  auto result = Napi::Object::New(info.Env());
  const auto set = [](Napi::Object object, const char* name, const std::string& text) {
    if (!text.empty()) {
      object.Set(name, text);
    }
  };
  set(result, "driver", facts.driver);
  set(result, "kernels", facts.kernels);
  set(result, "problem", facts.problem);
  result.Set("contextEvents", facts.has_context_events);
  auto devices = Napi::Array::New(info.Env());
  for (const DeviceFacts& each : facts.devices) {
    auto device = Napi::Object::New(info.Env());
    device.Set("device", "cuda:" + std::to_string(each.ordinal));
    device.Set("name", each.name);
    device.Set("computeCapability", std::to_string(each.major) + "." + std::to_string(each.minor));
    device.Set("memoryBytes", each.memory_bytes);
    set(device, "code", each.code);
    devices.Set(devices.Length(), device);
  }
  result.Set("devices", devices);
  return result;
}

/** registerTensorFlow(withGpu): whether there are kernels for its GPUs. */
Napi::Value register_tensorflow(const Napi::CallbackInfo& info) {
  const bool with_gpu = info.Length() > 0 && info[0].IsBoolean() && info[0].As<Napi::Boolean>().Value();
  bool has_gpu = false;
  const std::string error = register_tensorflow_ops(with_gpu, &has_gpu);
  return error.empty() ? Napi::Boolean::New(info.Env(), has_gpu) : throw_text(info.Env(), error);
}

Napi::Value calls(const Napi::CallbackInfo& info) {
  const CallCounts& counts = call_counts();
  auto result = Napi::Object::New(info.Env());
  result.Set("forward", static_cast<double>(counts.forward));
  result.Set("backward", static_cast<double>(counts.backward));
  result.Set("append", static_cast<double>(counts.append));
  result.Set("tensorflow", static_cast<double>(counts.tensorflow));
  result.Set("cuda", static_cast<double>(counts.cuda));
  result.Set("inPlaceOfCuda", static_cast<double>(counts.in_place_of_cuda));
  return result;
}

/** Environments (the main thread's and workers') that have loaded the addon. */
std::atomic<int> environments{0};

void end_environment() {
  if (--environments == 0) {
    stop_threads();
    release_staging();
  }
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  environments++;
  env.AddCleanupHook(end_environment);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  exports.Set("format", static_cast<double>(DESCRIPTION_FORMAT));
  add("run", run_on_arrays);
  add("append", append_to_arrays);
  add("instructionSet", instruction_set_of);
  add("forceInstructionSet", force);
  add("defaultThreads", default_threads_of);
  add("threads", threads_of);
  add("setThreads", set_threads_of);
  add("setDevice", set_device);
  add("device", device_of);
  add("takeNotice", notice_of);
  add("cuda", cuda_of);
  add("registerTensorFlow", register_tensorflow);
  add("calls", calls);
  return exports;
}

NODE_API_MODULE(flash_attention, init)

}  // namespace
}  // namespace flash_attention
