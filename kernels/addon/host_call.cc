#include "host_call.h"

#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "description.h"
#include "device_call.h"
#include "heap_workspace.h"
#include "run_call.h"

namespace flash_attention {
namespace {

struct Array {
  napi_typedarray_type type;
  size_t length;
  void* data;

  size_t bytes() const { return length * (type == napi_uint8_array ? 1 : 4); }
};

/** Also of a SharedArrayBuffer or of WebAssembly's memory. */
bool read_array(Napi::Env env, napi_value value, Array* array) {
  bool is_array = false;
  return napi_is_typedarray(env, value, &is_array) == napi_ok && is_array &&
         napi_get_typedarray_info(env, value, &array->type, &array->length, &array->data, nullptr, nullptr) == napi_ok;
}

napi_typedarray_type array_type(ElementType type) {
  return type == ElementType::int32   ? napi_int32_array :
         type == ElementType::boolean ? napi_uint8_array :
                                        napi_float32_array;
}

const char* array_name(ElementType type) {
  return type == ElementType::int32   ? "an Int32Array" :
         type == ElementType::boolean ? "a Uint8Array" :
                                        "a Float32Array";
}

bool share_memory(const Array& a, const Array& b) {
  const auto from_a = reinterpret_cast<uintptr_t>(a.data), from_b = reinterpret_cast<uintptr_t>(b.data);
  return a.length > 0 && b.length > 0 && from_a < from_b + b.bytes() && from_b < from_a + a.bytes();
}

class ArrayCall {
 public:
  explicit ArrayCall(const Napi::CallbackInfo& info) : info_(info) {}

  std::string read(bool is_append) {
    Array values;
    if (info_.Length() < (is_append ? 2 : 3) || !read_array(info_.Env(), info_[0], &values) ||
        values.type != napi_float64_array || !info_[1].IsArray() || (!is_append && !info_[2].IsArray())) {
      return "the addon expects a description in a Float64Array and arrays of typed arrays";
    }
    const std::string error = read_description(static_cast<const double*>(values.data), values.length, &description);
    if (!error.empty()) {
      return error;
    }
    if ((description.kind == CallKind::append) != is_append) {
      return "the description is that of another call";
    }
    return read_tensors(info_[1].As<Napi::Array>());
  }

  /** After {@link read}. */
  std::string read_results() {
    std::vector<int> names;
    std::vector<int64_t> elements;
    if (description.kind == CallKind::forward) {
      names = {OUTPUT, LSE, LSE_TAIL};
      elements = {description.output_elements(), description.lse_elements(), description.lse_elements()};
    }
    for (int name = 0; name < TENSOR_NAMES; name++) {
      if (description.wants(name)) {
        names.push_back(name);
        elements.push_back(elements_[name]);
      }
    }
    const auto given = info_[2].As<Napi::Array>();
    if (given.Length() != names.size()) {
      return "expected " + std::to_string(names.size()) + " results, received " + std::to_string(given.Length());
    }
    for (size_t n = 0; n < names.size(); n++) {
      Array array;
      if (!element(given, n, &array) || array.type != napi_float32_array ||
          static_cast<int64_t>(array.length) != elements[n]) {
        return "expected a Float32Array of " + std::to_string(elements[n]) + " elements for result " +
               std::to_string(n);
      }
      for (const Array& other : arrays_) {
        if (share_memory(array, other)) {
          return std::string("expected memory of its own for result ") + std::to_string(n);
        }
      }
      arrays_.push_back(array);
      results.data[names[n]] = array.data;
    }
    return "";
  }

  Description description;
  Memory memory, results;

 private:
  bool element(const Napi::Array& list, size_t place, Array* array) {
    napi_value value;
    return napi_get_element(info_.Env(), list, static_cast<uint32_t>(place), &value) == napi_ok &&
           read_array(info_.Env(), value, array);
  }

  std::string read_tensors(const Napi::Array& given) {
    if (given.Length() != static_cast<uint32_t>(description.tensors())) {
      return "expected " + std::to_string(description.tensors()) + " tensors, received " +
             std::to_string(given.Length());
    }
    size_t place = 0;
    for (int name = 0; name < TENSOR_NAMES; name++) {
      if (!description.has(name)) {
        continue;
      }
      Array array;
      if (!element(given, place++, &array) || array.type != array_type(element_type(name))) {
        return std::string("expected ") + array_name(element_type(name)) + " for " + tensor_name(name);
      }
      memory.data[name] = array.data;
      elements_[name] = static_cast<int64_t>(array.length);
      arrays_.push_back(array);
    }
    return check_elements(description, elements_);
  }

  const Napi::CallbackInfo& info_;
  int64_t elements_[TENSOR_NAMES] = {};
  std::vector<Array> arrays_;
};

/** Nothing is thrown into Node but its own exceptions. */
Napi::Value guarded(Napi::Env env, const std::function<std::string()>& body) {
  std::string error;
  try {
    error = body();
  } catch (const std::exception& failure) {
    error = failure.what();
  }
  if (!error.empty() && !env.IsExceptionPending()) {
    return throw_text(env, error);
  }
  return env.Undefined();
}

}  // namespace

Napi::Value throw_text(Napi::Env env, const std::string& text) {
  Napi::Error::New(env, "flashAttention: " + text).ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Value run_on_arrays(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> std::string {
    ArrayCall call(info);
    std::string error = call.read(false);
    if (error.empty()) {
      error = call.read_results();
    }
    if (!error.empty()) {
      return error;
    }
    HeapWorkspace workspace;
    return run_on_chosen_device(call.description, call.memory, call.results, workspace);
  });
}

Napi::Value append_to_arrays(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> std::string {
    ArrayCall call(info);
    std::string error = call.read(true);
    if (error.empty()) {
      run_append(call.description, call.memory);
    }
    return error;
  });
}

}  // namespace flash_attention
