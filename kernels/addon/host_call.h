// Calls on typed arrays of JavaScript.
#pragma once

#ifndef NAPI_VERSION
#define NAPI_VERSION 8
#endif
#ifndef NAPI_DISABLE_CPP_EXCEPTIONS
#define NAPI_DISABLE_CPP_EXCEPTIONS
#endif
#include <napi.h>

namespace flash_attention {

/** run(description, tensors, results): attention or its gradients, by the description. */
Napi::Value run_on_arrays(const Napi::CallbackInfo& info);

/** append(description, tensors): writes rows into the arrays of a cache. */
Napi::Value append_to_arrays(const Napi::CallbackInfo& info);

/** An exception that says `flashAttention: …`. */
Napi::Value throw_text(Napi::Env env, const std::string& text);

}  // namespace flash_attention
