"""Kernel tables: the distinct kernels of a deployment, priced at a grid of sizes by any performance model.

    shapes     what tells one kernel from another, and the kernels of what one rank computes
    grid       the sizes at which each is priced, and the jobs of a fill
    pricing    one kernel at some sizes -> ns, by any performance model
    probing    sizes between those of the grid, and how far a table is off there
    layout     the folder of a table: kernels.yaml and a CSV a kind of kernel and tensor-parallel degree

`trace_gen.perf_models.profile.kernel_tables` is the performance model of such a folder; which deployments there are,
and who prices the jobs, is the orchestrator's.
"""
