"""The twin of bench_ops.rs in PyTorch: the same operations and sizes, the same lines. Usage: bench_ops.py [THREADS]"""
import sys, time
import torch
import torch.nn.functional as F

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
torch.manual_seed(0)
SECONDS = 1.0


def report(name, what, flops, run):
    run()
    times, started = [], time.perf_counter()
    while time.perf_counter() - started < SECONDS or len(times) < 5:
        times.append(run())
    times.sort()
    print(f"{name:32} {what:8} {times[len(times) // 2]:9.3f} {times[0]:9.3f} {flops / times[0] * 1e-6:7.0f}", flush=True)


def bench(name, x, weight, f):
    x, weight = torch.randn(x), torch.randn(weight)
    y = f(x, weight)
    dy = torch.randn_like(y)
    flops = 2 * y.numel() * weight.numel() / weight.shape[0]

    def forward():
        with torch.no_grad():
            start = time.perf_counter()
            f(x, weight)
            return (time.perf_counter() - start) * 1e3

    def backward(variable):
        variable.requires_grad_(True)
        y = f(x, weight)
        start = time.perf_counter()
        torch.autograd.grad(y, variable, dy)
        elapsed = (time.perf_counter() - start) * 1e3
        variable.requires_grad_(False)
        return elapsed

    report(name, "forward", flops, forward)
    report(name, "input", flops, lambda: backward(x))
    report(name, "weight", flops, lambda: backward(weight))


for b, i, o, size, k, s in [(1, 320, 320, 64, 3, 1), (16, 64, 64, 16, 3, 1), (16, 128, 128, 8, 3, 1), (2, 640, 640, 32, 3, 1),
                            (2, 320, 320, 64, 3, 2), (1, 128, 128, 256, 3, 1), (2, 320, 640, 32, 1, 1), (2, 4, 320, 64, 3, 1),
                            (2, 320, 4, 64, 3, 1)]:
    bench(f"conv B{b} {i}-{o} {size} k{k} s{s}", (b, i, size, size), (o, i, k, k), lambda x, w: F.conv2d(x, w, stride=s, padding=k // 2))
for m, i, o in [(4096, 640, 640), (2048, 2048, 2048), (256, 64, 64), (4096, 320, 1280), (4096, 64, 256), (154, 768, 640), (16, 256, 256),
                (1, 1280, 1280)]:
    bench(f"linear {m} {i}-{o}", (m, i), (o, i), F.linear)
