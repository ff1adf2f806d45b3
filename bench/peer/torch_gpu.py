"""What PyTorch reaches on this GPU for the operations that bench/ops.mjs times, as one table in Markdown.

Started by bench/gpu.sh, in the same run as our own figures. Needs torch with CUDA; says so and ends with 0 without.
Each figure is the median of calls that were timed on the device, each between two events.
"""
import statistics
import sys


def median_seconds(torch, call, calls=30):
    for _ in range(3):
        call()
    spans = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
    for start, stop in spans:
        start.record()
        call()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in spans) / 1e3


def attention_rows(torch):
    """Causal flash attention as training runs it: batch x length = 16384 tokens, grouped heads."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as sdpa
    for heads, kv_heads, dim in [(32, 8, 128), (32, 8, 64), (9, 3, 64)]:
        for length in [512, 1024, 2048, 4096]:
            batch = 16384 // length
            shape = lambda count: (batch, count, length, dim)
            q = torch.randn(shape(heads), device="cuda", dtype=torch.bfloat16, requires_grad=True)
            k, v = (torch.randn(shape(kv_heads), device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in "kv")
            pairs = batch * heads * length * (length + 1) / 2
            sizes = f"{batch} x {length}, H {heads}, K {kv_heads}, D {dim}"
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                run = lambda: sdpa(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
                with torch.no_grad():
                    yield "flash SDPA forward", sizes, median_seconds(torch, run), 4 * dim * pairs, None
                out = run()
                grad = torch.randn_like(out)
                back = lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True)
                yield "flash SDPA backward", sizes, median_seconds(torch, back), 10 * dim * pairs, None


def matmul_rows(torch):
    tokens = 8192
    for m, n, k in [(8192, 8192, 8192), (tokens, 1728, 576), (tokens, 3072, 576), (tokens, 576, 1536),
                    (tokens, 16384, 2048), (tokens, 2048, 8192), (tokens, 28672, 4096), (tokens, 4096, 14336)]:
        a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        run = lambda: torch.matmul(a, b.T)
        yield "matmul (nt)", f"{m} x {n} x {k}", median_seconds(torch, run), 2 * m * n * k, None


def head_rows(torch):
    for rows, vocabulary in [(1024, 49152), (1024, 128256)]:
        logits = torch.randn(rows, vocabulary, device="cuda")
        run = lambda: torch.log_softmax(logits, -1)
        yield "log_softmax", f"{rows} x {vocabulary} f32", median_seconds(torch, run), None, 8 * rows * vocabulary


def main():
    try:
        import torch
    except ImportError:
        print("skipped: no PyTorch")
        return
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no CUDA device")
        return
    torch.manual_seed(1)
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(0)}\n")
    print("| op | sizes | µs, median | TFLOP/s | GB/s |\n|---|---|---|---|---|")
    for rows in [attention_rows, matmul_rows, head_rows]:
        for op, sizes, seconds, flops, moved in rows(torch):
            rate = f"{flops / seconds / 1e12:.0f}" if flops else ""
            width = f"{moved / seconds / 1e9:.0f}" if moved else ""
            print(f"| {op} | {sizes} | {1e6 * seconds:.0f} | {rate} | {width} |")


if __name__ == "__main__":
    sys.exit(main())
