"""The closed-form estimator: what a static batch takes on one GPU, by two formulas, without a serving run.

    from orchestrator.estimating import simulate

    latencys = simulate("facebook/opt-6.7b", 1024, 512, gpu="A100-80G")

`formulas` has the formulas, `registries` the small JSON files of GPUs, models and prompt speeds, `entries` what stands
in for an entry that is missing, `prompts` and `regression` where a prompt speed comes from, `comparison` the full
simulation of the same requests beside the formulas. docs/estimator.md is the page for users.
"""

from orchestrator.estimating.estimate import simulate

__all__ = ["simulate"]
