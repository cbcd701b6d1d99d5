"""A branch of the residual stream -> attention or an MLP, with how its matrices are stored.

    attention   norm > projections to queries, keys, values [norms of heads] [rotary] > scores > softmax > values >
                projection
    MLP         norm > one or two projections up > activation > projection down

Scores may be made by products and a softmax, or by a fused operator of ONNX or onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from math import prod

from foundation.records import dataclass
from trace_gen.architecture import NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.mlp.dense import DenseMlp
from trace_gen.onnx.evaluation import Evaluation
from trace_gen.onnx.flow import FUSED_ATTENTION, PRODUCTS, Branch, Flow
from trace_gen.onnx.graph import Node, refusal
from trace_gen.onnx.matrices import Projection, Stored, projection
from trace_gen.onnx.regions import ACTIVATIONS, NORMS, Region, Walker

_SCORE_STEPS = frozenset({"Mul", "Div", "Add", "Where", "Max", "Min", "Clip"})
"""What may happen to scores: scales by one number, masks."""
_AFTER_SOFTMAX = frozenset({"Where", "IsNaN"})
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """What a branch is: `core` is the attention or the MLP, `norm` that before it; `stored`: role -> matrix."""

    core: GroupedAttention | DenseMlp
    norm: NormKind
    stored: Mapping[str, Stored] = field(hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """The product of scores and values, or what does all at once: `queries`, `keys` and `values` are its inputs."""

    node: Node
    queries: str
    keys: str
    values: str
    window: int | None = None
    rotary: bool = False
    bias: bool = False


class Examiner:
    """Examines branches of one graph whose hidden states have `hidden` elements."""

    def __init__(self, flow: Flow, evaluation: Evaluation, hidden: int) -> None:
        self.flow, self.evaluation, self.hidden = flow, evaluation, hidden
        self.walker = Walker(flow, evaluation)

    def examine(self, branch: Branch) -> Part:
        """Return what `branch` is. Raises `UserError` with the node that has no place."""
        if branch.behind != (0,):
            what = "adds a branch that does not read the hidden state just before it (attention and MLP side by side)"
            raise refusal(branch.node, f"{what}: not modelled")
        end, bias = self.projected(branch.output, f"before it is added to the hidden state by {branch.node.title}")
        if end.outputs != self.hidden:
            raise refusal(end.node, f"adds {end.outputs} elements to a hidden state of {self.hidden}")
        before = self.walker.back(end.source)
        if any(node.op in FUSED_ATTENTION or self.is_product_of_hidden(node) for node in before.ends):
            return self._attention(before, end, bias)
        return self._mlp(before, end, bias)

    def projected(self, name: str, where: str) -> tuple[Projection, bool]:
        """Return the projection whose output is `name`, and whether it has a bias."""
        region = self.walker.back(name)
        region.only(frozenset({"Add"}), where)
        if len(region.ends) != 1 or region.streams:
            parts = ", ".join(node.title for node in region.ends[:3]) or "no product"
            if len(region.ends) == 2:
                parts += " (attention and MLP side by side?)"
            raise refusal(next(region.works(), None), f"made of {parts} {where}: one projection is expected")
        made = self.projection(region.ends[0])
        return made, made.bias or self._adds(region, made)

    def projection(self, node: Node) -> Projection:
        """Return what a product multiplies by."""
        return projection(self.flow, self.evaluation, node)

    def is_product_of_hidden(self, node: Node) -> bool:
        """Whether a node multiplies two tensors that depend on the tokens."""
        return node.op in PRODUCTS and all(map(self.flow.is_hidden, node.inputs[:2]))

    def normed(self, projections: Iterable[Projection], where: str) -> NormKind:
        """Return the norm before projections, which all read the same normalised stream."""
        regions = {one.source: self.walker.back(one.source) for one in projections}
        for one in projections:
            region = regions[one.source]
            if region.ends:
                what = f"reads {region.ends[-1].title}, not the normalised hidden state (a low-rank projection?)"
                raise refusal(one.node, f"{what}: not modelled")
            if one.inputs != self.hidden:
                raise refusal(one.node, f"takes {one.inputs} elements of a hidden state of {self.hidden}")
        norms = {tuple(node.index for node in region.works()) for region in regions.values()}
        kinds = {self.walker.norm(region, self.hidden, where) for region in regions.values()}
        if len(norms) != 1:
            first = next(iter(projections)).node
            raise refusal(first, f"{len(norms)} norms {where}: one for all projections is expected")
        return kinds.pop()

    def _adds(self, region: Region, of: Projection) -> bool:
        """Whether a region adds a bias to a projection; anything else that it adds is refused."""
        sizes = [(node, size) for node in region.works() for _, size in self.walker.others(node)]
        for node, size in sizes:
            if size != of.outputs:
                raise refusal(node, f"adds {size} elements to a projection's {of.outputs}: a bias is expected")
        return bool(sizes)

    def _mlp(self, before: Region, down: Projection, bias: bool) -> Part:
        before.only(ACTIVATIONS, "between the projections of an MLP")
        if before.streams or not 1 <= len(before.ends) <= 2:
            what = f"takes something made of {len(before.ends)} products"
            raise refusal(down.node, f"{what}: the one or two projections of an MLP are expected")
        ups = [self.projection(node) for node in before.ends]
        widths, inner = [up.outputs for up in ups], down.inputs
        if widths not in ([inner], [2 * inner], [inner, inner]):
            raise refusal(down.node, f"takes {inner} elements, but the projections before it make {widths}")
        gated = widths != [inner]
        added = [size for _, size in self.walker.vectors(before.works())]
        if any(size not in widths for size in added):
            raise refusal(next(before.works()), f"parameters of sizes {added} in an MLP, biases of {widths} expected")
        biases = [up.bias or at < len(added) for at, up in enumerate(ups)]
        if len(added) > len(ups) or set(biases) != {bias}:
            raise refusal(down.node, "an MLP of which some projections have biases and some have not is not modelled")
        roles = (("gate_proj", "up_proj") if gated else ("fc1",), "down_proj" if gated else "fc2")
        stored = {role: ups[min(at, len(ups) - 1)].stored for at, role in enumerate(roles[0])}
        norm = self.normed(ups, "before an MLP")
        return Part(DenseMlp(inner, gated, bias), norm, stored | {roles[1]: down.stored})

    def _attention(self, before: Region, out: Projection, bias: bool) -> Part:
        before.only(_NOTHING, "between attention and its output projection")
        if len(before.ends) != 1:
            raise refusal(out.node, f"takes something made of {len(before.ends)} products: attention is expected")
        heads = self._heads(before.ends[0])
        regions = [self.walker.back(name) for name in (heads.queries, heads.keys, heads.values)]
        made = [self._one_projection(region, heads.node) for region in regions]
        projections = list({one.node.index: one for one in made}.values())
        norm = self.normed(projections, "before attention")
        head_dim, count = self._head_sizes(heads, made)
        kv = self._kv_heads(projections, made, count, head_dim, heads.node)
        turned = [self.walker.rotates(region, head_dim) for region in regions]
        self._check_cache(regions, kv * head_dim, heads)
        attention = GroupedAttention(
            count,
            kv,
            head_dim,
            rotary=heads.rotary or self._alike([rotary for rotary, _ in turned[:2]], heads.node, "rotary positions"),
            qkv_bias=heads.bias or self._qkv_bias(regions, projections, heads.node),
            output_bias=bias,
            qk_norm=self._qk_norm(regions, turned, head_dim, heads.node),
            window=heads.window,
        )
        if out.inputs != count * head_dim:
            raise refusal(out.node, f"takes {out.inputs} elements of {count} heads of {head_dim}")
        stored = {role: one.stored for role, one in zip(("q_proj", "k_proj", "v_proj"), made, strict=True)}
        return Part(attention, norm, stored | {"o_proj": out.stored})

    def _heads(self, node: Node) -> _Heads:
        """Return the inputs of attention, whose output is that of `node`."""
        if node.op in FUSED_ATTENTION:
            return self._fused(node)
        weighted, values = node.inputs[0], node.inputs[1]
        after = self.walker.back(weighted)
        after.only(_AFTER_SOFTMAX, "between the softmax of attention and the values", whole=True)
        if len(after.ends) != 1 or after.ends[0].op != "Softmax":
            raise refusal(node, "multiplies two things that depend on the tokens, but no softmax: not modelled")
        scores = self.walker.back(after.ends[0].inputs[0])
        scores.only(_SCORE_STEPS, "between the scores of attention and their softmax", whole=True)
        if len(scores.ends) != 1 or not self.is_product_of_hidden(scores.ends[0]) or scores.streams:
            raise refusal(after.ends[0], "a softmax of something other than the product of queries and keys")
        product = scores.ends[0]
        return _Heads(node, product.inputs[0], product.inputs[1], values)

    def _fused(self, node: Node) -> _Heads:
        if node.op == "Attention" and node.domain:
            fix = "export it unfused, or with GroupQueryAttention or MultiHeadAttention"
            raise refusal(node, "an Attention that holds its projections is not modelled", fix)
        for name in ("softcap", "smooth_softmax", "qk_matmul_output_mode"):
            if node.attributes.get(name) not in (None, 0, 0.0, -1):
                raise refusal(node, f"{name} {node.attributes[name]} is not modelled")
        window = node.integer("local_window_size", -1)
        bias = node.op == "MultiHeadAttention" and bool(node.input(3))
        queries = node.inputs[0]
        keys, values = node.input(1) or queries, node.input(2) or queries
        rotary = bool(node.integer("do_rotary", 0))
        return _Heads(node, queries, keys, values, window if window > 0 else None, rotary, bias)

    def _one_projection(self, region: Region, node: Node) -> Projection:
        if len(region.ends) != 1 or region.streams:
            titles = ", ".join(end.title for end in region.ends[:3]) or "no projection"
            raise refusal(node, f"queries, keys or values made of {titles}: one projection each is expected")
        return self.projection(region.ends[0])

    def _head_sizes(self, heads: _Heads, made: list[Projection]) -> tuple[int, int]:
        """Return the elements of a head, and how many heads the queries have."""
        node = heads.node
        count = node.integer("num_heads", node.integer("q_num_heads", 0))
        if node.op in FUSED_ATTENTION and count > 0:
            packed = made[0].node is made[1].node
            kv = node.integer("kv_num_heads", count)
            parts = count + 2 * kv if packed else count
            if made[0].outputs % parts:
                raise refusal(node, f"{made[0].outputs} elements, which {parts} heads do not divide")
            return made[0].outputs // parts, count
        dims = self.evaluation.shape(heads.queries)
        before = self.evaluation.shape(made[0].source)
        if dims is None or before is None or len(dims) < 3 or not prod(dims):
            raise refusal(node, "the sizes of its queries cannot be told", "export it with named dynamic axes")
        elements, head_dim = prod(dims) // prod(before[:-1]), dims[-1]
        if elements % head_dim or prod(dims) % prod(before[:-1]):
            raise refusal(node, f"queries of sizes {dims} are no heads of tokens")
        return head_dim, elements // head_dim

    def _kv_heads(
        self, projections: list[Projection], made: list[Projection], count: int, head_dim: int, node: Node
    ) -> int:
        """Return the heads of keys, which values have, too: what the projections make beside the queries."""
        if len(projections) == 3 and (made[0].outputs != count * head_dim or made[1].outputs != made[2].outputs):
            told = ", ".join(str(one.outputs) for one in made)
            raise refusal(node, f"queries, keys and values of {told} elements for {count} heads of {head_dim}")
        kept = sum(one.outputs for one in projections) - count * head_dim
        kv = kept // (2 * head_dim)
        if kept != 2 * kv * head_dim or kv < 1 or count % kv:
            raise refusal(node, f"keys and values of {kept} elements for {count} heads of {head_dim}: not modelled")
        return kv

    def _alike(self, found: list[bool], node: Node, what: str) -> bool:
        if len(set(found)) != 1:
            raise refusal(node, f"{what} of either queries or keys alone: not modelled")
        return found[0]

    def _qkv_bias(self, regions: list[Region], projections: list[Projection], node: Node) -> bool:
        found = []
        for one in projections:
            own = [region for region in regions if one.node in region.ends]
            works = tuple(added for region in own for added in region.works() if added.op == "Add")
            found.append(one.bias or any(size == one.outputs for _, size in self.walker.vectors(works)))
        if len(set(found)) != 1:
            raise refusal(node, "only some of queries, keys and values have biases: not modelled")
        return found[0]

    def _qk_norm(self, regions: list[Region], turned: list[tuple[bool, bool]], head_dim: int, node: Node) -> bool:
        """Whether queries and keys are normalised by heads; other parameters between are refused."""
        normed = self._alike([normed for _, normed in turned[:2]], node, "norms")
        if turned[2][1] or turned[2][0]:
            raise refusal(node, "values that are normalised or rotated are not modelled")
        for region in regions[:2] if normed else ():
            works = [one for one in region.works() if one.op != "Add"]
            weights = [size for _, size in self.walker.vectors(works) if size == head_dim]
            if any(NORMS.get(one.op) is NormKind.LAYER or one.op == "Sub" for one in works) or weights != [head_dim]:
                raise refusal(works[0], f"a norm of queries or keys other than RMSNorm of heads of {head_dim}")
        return normed

    def _check_cache(self, regions: list[Region], kept: int, heads: _Heads) -> None:
        """Refuse a cache that holds something other than `kept` elements of keys and of values a token."""
        given = self.flow.graph.inputs
        joins = [node for region in regions[1:] for node in region.nodes if node.op == "Concat"]
        joined = [name for node in joins for name in node.inputs]
        for name in (*joined, *heads.node.inputs):
            dims = given[name].dims if name in given else None
            if dims is None or len(dims) != 4:
                continue
            fixed = [size for size in dims if isinstance(size, int)]
            if len(fixed) >= 2 and prod(fixed) % kept and kept % prod(fixed):
                what = f"the cache {name!r} holds {prod(fixed)} elements a token, keys have {kept}"
                raise refusal(heads.node, f"{what}: not modelled")
