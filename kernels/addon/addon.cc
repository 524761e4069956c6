// What JavaScript sees of the addon: registers, and nothing else.
#include "host_call.h"

#include <atomic>
#include <string>

#include "../cpu/attention.h"
#include "description.h"
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

Napi::Value register_tensorflow(const Napi::CallbackInfo& info) {
  const std::string error = register_tensorflow_ops();
  return error.empty() ? info.Env().Undefined() : throw_text(info.Env(), error);
}

Napi::Value calls(const Napi::CallbackInfo& info) {
  const CallCounts& counts = call_counts();
  auto result = Napi::Object::New(info.Env());
  result.Set("forward", static_cast<double>(counts.forward));
  result.Set("backward", static_cast<double>(counts.backward));
  result.Set("append", static_cast<double>(counts.append));
  result.Set("tensorflow", static_cast<double>(counts.tensorflow));
  return result;
}

/** Environments (the main thread's and workers') that have loaded the addon. */
std::atomic<int> environments{0};

void end_environment() {
  if (--environments == 0) {
    stop_threads();
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
  add("registerTensorFlow", register_tensorflow);
  add("calls", calls);
  return exports;
}

NODE_API_MODULE(flash_attention, init)

}  // namespace
}  // namespace flash_attention
