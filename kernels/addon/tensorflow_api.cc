#include "tensorflow_api.h"

#include <dlfcn.h>

#include <vector>

namespace flash_attention {
namespace {

#ifdef __APPLE__
const char* const SONAMES[] = {"libtensorflow_framework.2.dylib", "libtensorflow_cc.2.dylib", "libtensorflow.2.dylib"};
#else
// Those of pip's wheels hold the API in the first two, those of the archives for C in the last.
const char* const SONAMES[] = {"libtensorflow_framework.so.2", "libtensorflow_cc.so.2", "libtensorflow.so.2"};
#endif

void* find(const std::vector<void*>& libraries, const char* name) {
  for (void* library : libraries) {
    if (void* symbol = dlsym(library, name)) {
      return symbol;
    }
  }
  return nullptr;
}

}  // namespace

std::string find_tensorflow(TensorFlowApi* api) {
  // Never closed: TensorFlow keeps our kernels, so neither it nor this addon can go before the process does.
  std::vector<void*> libraries;
  for (const char* soname : SONAMES) {
    if (void* library = dlopen(soname, RTLD_LAZY | RTLD_NOLOAD)) {
      libraries.push_back(library);
    }
  }
  if (libraries.empty()) {
    return "no TensorFlow is loaded in this process: import @tensorflow/tfjs-node first";
  }
#define FLASH_ATTENTION_FIND(result, name, parameters)                                   \
  api->name = reinterpret_cast<result(*) parameters>(find(libraries, "TF_" #name));      \
  if (api->name == nullptr) {                                                            \
    return "the TensorFlow of this process has no TF_" #name ": use version 2.9 or newer"; \
  }
  FLASH_ATTENTION_TENSORFLOW_FUNCTIONS(FLASH_ATTENTION_FIND)
#undef FLASH_ATTENTION_FIND
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(api->NewOpDefinitionBuilder), &info) != 0 && info.dli_fname != nullptr) {
    api->library = info.dli_fname;
  }
  return "";
}

}  // namespace flash_attention
