"""Times the operators of a model on the device at hand, and writes what `--profile_dir` and `--perf_table` read.

`plan` says what is measured, `journal` keeps what has been, `device` is the contract of what measures, `torch_device`
the implementation in plain PyTorch, with an operator's kernels each in `kernels`. Nothing but those two loads PyTorch.
"""
