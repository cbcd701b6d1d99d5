"""The formulas: a prompt phase as fast as tokens are processed, a token phase as fast as memory is read.

    prompt phase                   L_p = bsz n_p / k
    i-th token of the token phase  L_i = (S_MW + (n_p + i) bsz s_KVC) / BW
    token phase                    L_t = L_1 + ... + L_{n_t} = bsz alpha n_t^2 + (bsz beta + C) n_t

    alpha = s_KVC / (2 BW)         beta = (n_p + 1/2) s_KVC / BW         C = S_MW / BW

bsz sequences of n_p prompt tokens each; k prompt tokens a second (PTPS); S_MW bytes of weights and s_KVC bytes of KV
cache a token, read at BW bytes a second. The closed form is exact: 1 + ... + n = n^2/2 + n/2.

Sources: the prompt phase depends on the number of tokens alone (Splitwise, arXiv 2311.18677); a step of the token phase
reads all weights and the KV cache once (Databricks, "LLM Inference Performance Engineering: Best Practices", 2023).
What they leave out is in docs/estimator.md.
"""

from __future__ import annotations

from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Formula:
    """One model on one GPU. Times are seconds, in the kind of number that the fields are (floats; fractions are exact).

    `weight_bytes`: S_MW; `kv_bytes_per_token`: s_KVC; `bandwidth`: BW, bytes/s; `ptps`: k, prompt tokens/s.
    """

    weight_bytes: float
    kv_bytes_per_token: float
    bandwidth: float
    ptps: float

    def prompt_phase(self, batch_size: int, prompt_length: int) -> float:
        """Return L_p, s: whatever the batch, only the number of its tokens counts."""
        return batch_size * prompt_length / self.ptps

    def token(self, batch_size: int, prompt_length: int, index: int) -> float:
        """Return L_i, s, of the token `index`, from 1 on."""
        cached = (prompt_length + index) * batch_size
        return (self.weight_bytes + cached * self.kv_bytes_per_token) / self.bandwidth

    def token_phase(self, batch_size: int, prompt_length: int, response_length: int) -> float:
        """Return L_t, s, by the closed form."""
        alpha = self.kv_bytes_per_token / (2 * self.bandwidth)
        beta = (2 * prompt_length + 1) * alpha
        constant = self.weight_bytes / self.bandwidth
        return batch_size * alpha * response_length**2 + (batch_size * beta + constant) * response_length

    def total(self, batch_size: int, prompt_length: int, response_length: int) -> float:
        """Return L = L_p + L_t, s."""
        prompt = self.prompt_phase(batch_size, prompt_length)
        return prompt + self.token_phase(batch_size, prompt_length, response_length)

    def latencys(self, batch_size: int, prompt_length: int, response_length: int) -> list[float]:
        """Return L_p, then L_1 to L_{n_t}: `response_length` + 1 values, s."""
        tokens = range(1, response_length + 1)
        prompt = self.prompt_phase(batch_size, prompt_length)
        return [prompt, *(self.token(batch_size, prompt_length, index) for index in tokens)]
