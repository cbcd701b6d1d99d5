"""Clusters and engines as other programs describe them, read as a run file is: into layers of settings.

- `llmservingsim`: the cluster JSON of LLMServingSim (`--cluster_config`);
- `vllm_engine`: arguments of a vLLM engine (`--engine_config`);
- `joining`: both, a model's config.json (`--model_config`), a run file and flags, which must not contradict each other.
"""
