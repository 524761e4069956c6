"""The CUDA kernels of this package through libflash_attention_cuda.so (library.cc), on tensors of PyTorch."""
import contextlib
import ctypes

COMPUTE_TYPES = ('float32', 'tensorfloat32', 'float16', 'bfloat16')  # ComputeType of kernels/cuda/plan.h
FAMILIES = ('best', 'mma_sync', 'hopper')  # Family of the same
POINTERS = ('q', 'k', 'v', 'output', 'lse', 'lse_tail', 'd_output', 'd_q', 'd_k', 'd_v')


class FlashCall(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ('batch', 'query_length', 'key_length', 'query_heads', 'key_heads',
                                             'head_size', 'value_size')] +
        [(name, ctypes.c_int64 * 3) for name in ('q_strides', 'k_strides', 'v_strides', 'output_strides')] +
        [('softmax_scale', ctypes.c_double), ('causal', ctypes.c_int32), ('compute', ctypes.c_int32),
         ('family', ctypes.c_int32), ('deterministic', ctypes.c_int32)] +
        [(name, ctypes.c_void_p) for name in POINTERS])


class KernelError(Exception):
    """What the kernels answered."""


class Library:
    def __init__(self, path, ordinal=0):
        self.dll = ctypes.CDLL(path)
        for name in ('open', 'versions', 'run', 'launched', 'profiled'):
            getattr(self.dll, f'flash_cuda_{name}').restype = ctypes.c_char_p
        self.dll.flash_cuda_workspace.restype = ctypes.c_int64
        self.dll.flash_cuda_workspace.argtypes = [ctypes.POINTER(FlashCall), ctypes.c_int]
        self.dll.flash_cuda_run.argtypes = [
            ctypes.POINTER(FlashCall), ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self._check(self.dll.flash_cuda_open(ordinal))
        self.driver, self.toolkit = self.dll.flash_cuda_versions().decode().split()

    @staticmethod
    def _check(text):
        if text:
            raise KernelError(text.decode())

    def workspace(self, call, is_backward):
        return self.dll.flash_cuda_workspace(ctypes.byref(call), int(is_backward))

    def run(self, call, is_backward, kernels_alone, workspace, stream):
        self._check(self.dll.flash_cuda_run(
            ctypes.byref(call), int(is_backward), int(kernels_alone), workspace.data_ptr(), workspace.numel(), stream))

    def launched(self):
        return self.dll.flash_cuda_launched().decode().split()

    def profile(self, is_on):
        self.dll.flash_cuda_profile(int(is_on))

    def profiled(self):
        """(kernel, launches, milliseconds) of each since profiling began."""
        lines = self.dll.flash_cuda_profiled().decode().splitlines()
        return [(name, int(count), float(ms)) for name, count, ms in map(str.split, lines)]


class OwnCall:
    """A call on float32 tensors [B,H,N,D] of any strides: its outputs, gradients and workspaces are tensors too."""

    def __init__(self, torch, library, q, k, v, d_output, causal, compute, family='best'):
        self.torch, self.library = torch, library
        # NaN wherever nothing is written.
        new = lambda *shape: torch.full(shape, float('nan'), dtype=torch.float32, device=q.device)
        batch, heads, length, size = q.shape
        assert v.shape[3] == size and (d_output is None or d_output.stride() == q.stride())
        self.q, self.k, self.v, self.d_output = q, k, v, d_output
        self.output = torch.full_like(q, float('nan'))
        self.lse, self.lse_tail = new(batch, heads, length), new(batch, heads, length)
        self.d_q = self.d_k = self.d_v = None
        self.workspaces = [None, None]
        call = self.call = FlashCall(
            batch=batch, query_length=length, key_length=k.shape[2], query_heads=heads, key_heads=k.shape[1],
            head_size=size, value_size=v.shape[3], softmax_scale=size ** -0.5, causal=int(causal),
            compute=COMPUTE_TYPES.index(compute), family=FAMILIES.index(family), deterministic=1)
        for name in ('q', 'k', 'v', 'output'):
            x = getattr(self, name)
            assert x.stride(3) == 1 and x.dtype == torch.float32
            setattr(call, f'{name}_strides', (ctypes.c_int64 * 3)(*x.stride()[:3]))
        self._point(*POINTERS)

    def context(self):
        return contextlib.nullcontext()

    def _point(self, *names):
        for name in names:
            x = getattr(self, name)
            setattr(self.call, name, None if x is None else x.data_ptr())

    def _run(self, is_backward, kernels_alone):
        if is_backward and self.d_q is None:
            self.d_q, self.d_k, self.d_v = [self.torch.full_like(x, float('nan')) for x in (self.q, self.k, self.v)]
            self._point('d_q', 'd_k', 'd_v')
        if self.workspaces[is_backward] is None:
            bytes_of_it = self.library.workspace(self.call, is_backward)
            self.workspaces[is_backward] = self.torch.empty(bytes_of_it, dtype=self.torch.uint8, device=self.q.device)
        stream = self.torch.cuda.current_stream().cuda_stream if self.q.is_cuda else None
        self.library.run(self.call, is_backward, kernels_alone, self.workspaces[is_backward], stream)

    def forward(self, kernels_alone=False):
        self._run(False, kernels_alone)

    def backward(self, kernels_alone=False):
        self._run(True, kernels_alone)

    def begin(self, deterministic):
        """Without workspaces from before."""
        self.call.deterministic = int(deterministic)
        self.workspaces = [None, None]
