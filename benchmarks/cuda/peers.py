"""PyTorch's scaled_dot_product_attention by one of its kernels, on the tensors of OwnCall (library.py)."""
import contextlib

from exact import products

BACKENDS = {'cudnn': 'CUDNN_ATTENTION', 'flash-attention-2': 'FLASH_ATTENTION', 'efficient': 'EFFICIENT_ATTENTION',
            'math': 'MATH'}
DTYPES = {'bfloat16': 'bfloat16', 'float16': 'float16', 'float32': 'float32', 'tensorfloat32': 'float32'}


class PeerCall:
    """As OwnCall. The operands are converted before, once: what is timed is the kernel alone."""

    def __init__(self, torch, kind, q, k, v, d_output, causal, compute):
        from torch.nn.attention import SDPBackend, sdpa_kernel
        self.torch, self.causal, self.compute = torch, causal, compute
        self.backend = getattr(SDPBackend, BACKENDS[kind])
        self.sdpa_kernel = sdpa_kernel
        dtype = getattr(torch, DTYPES[compute])
        self.inputs = [x.to(dtype).detach().requires_grad_(d_output is not None) for x in (q, k, v)]
        self.d_output = None if d_output is None else d_output.to(dtype)
        self.output = self.with_graph = self.d_q = self.d_k = self.d_v = None

    @contextlib.contextmanager
    def context(self):
        """To be around everything that follows."""
        with self.sdpa_kernel(self.backend), products(self.torch, self.compute):
            yield

    def attend(self):
        return self.torch.nn.functional.scaled_dot_product_attention(*self.inputs, is_causal=self.causal)

    def forward(self, kernels_alone=True):
        with self.torch.no_grad():
            self.output = self.attend()

    def backward(self, kernels_alone=True):
        if self.with_graph is None:
            self.with_graph = self.attend()
        self.d_q, self.d_k, self.d_v = self.torch.autograd.grad(
            self.with_graph, self.inputs, self.d_output, retain_graph=True)

    def begin(self, deterministic):
        self.with_graph = None
