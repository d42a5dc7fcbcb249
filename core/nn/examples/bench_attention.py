"""The twin of bench_attention.rs in PyTorch: the same operations and sizes, the same lines. Usage: bench_attention.py [THREADS]"""
import sys, time
import torch
import torch.nn.functional as F

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
torch.manual_seed(0)


def bench(name, shapes, f):
    x = [torch.randn(s, requires_grad=True) for s in shapes]
    dy = torch.randn_like(f(*x))
    forward, both = [], []
    started = time.perf_counter()
    while time.perf_counter() - started < 2 or len(both) < 5:
        start = time.perf_counter()
        y = f(*x)
        forward.append((time.perf_counter() - start) * 1e3)
        torch.autograd.grad(y, x, dy)
        both.append((time.perf_counter() - start) * 1e3)
    for what, times in (("forward", forward), ("both", both)):
        times.sort()
        print(f"{name:32} {what:8} {times[len(times) // 2]:9.3f} {times[0]:9.3f}")


def attention(heads):
    def run(q, k, v):
        b, l, c = q.shape
        q, k, v = (t.view(b, -1, heads, c // heads).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, l, c)
    return run


for b, h, q, k, d in [(16, 2, 256, 256, 32), (2, 10, 1024, 1024, 64), (2, 20, 256, 256, 64), (2, 10, 1024, 77, 64), (16, 2, 256, 77, 32)]:
    bench(f"attention {b} {h} {q} {k} {d}", [(b, q, h * d), (b, k, h * d), (b, k, h * d)], attention(h))
image = (2, 320, 64, 64)
bench("group_norm_silu 2 320 64 64", [image, (320,), (320,)], lambda x, w, b: F.silu(F.group_norm(x, 32, w, b)))
bench("group_norm 2 320 64 64", [image, (320,), (320,)], lambda x, w, b: F.group_norm(x, 32, w, b))
bench("layer_norm 2 1024 640", [(2, 1024, 640), (640,), (640,)], lambda x, w, b: F.layer_norm(x, (640,), w, b))
bench("silu 2 320 64 64", [image], F.silu)
bench("gelu 2 1024 2560", [(2, 1024, 2560)], F.gelu)


def geglu(x):
    a, gate = x.chunk(2, -1)
    return a * F.gelu(gate)


bench("geglu 2 1024 5120", [(2, 1024, 5120)], geglu)
