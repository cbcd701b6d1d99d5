"""The kernels that are timed, in plain PyTorch: one module an idea, found by the names it registers.

To add one, write a module here with functions `@kernels.register("NAME")` of a bench, the kernel's shape and the sizes
of a batch, that return what computes it once (`profiler.bench.Builder`), and name it in `profiler.shapes`.
"""
