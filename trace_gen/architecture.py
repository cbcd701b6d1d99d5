"""What a decoder-only language model is made of, read from a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from foundation.errors import UserError, near_names
from trace_gen.config_fields import CONFIG_ROOT, Fields, read_json_object

MODELS_FOLDER = CONFIG_ROOT / "models"


class NormKind(Enum):
    """Normalisation: RMSNorm has a weight vector, LayerNorm a weight and a bias vector."""

    RMS = "rmsnorm"
    LAYER = "layernorm"


class PositionKind(Enum):
    """How positions enter: rotated into queries and keys, or added from a learned table."""

    ROTARY = "rotary"
    LEARNED = "learned"


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `count` gated MLPs of width `intermediate_size`; a token goes through `per_token` of them.

    `shared_intermediate_size`: the width of the shared experts together, which every token goes through (0: none);
    `shared_gate`: the router has one output more, which weighs theirs.
    """

    count: int
    per_token: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    shared_gate: bool = False

    @property
    def router_outputs(self) -> int:
        """Scores that the router gives a token."""
        return self.count + self.shared_gate

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of one block's router and experts."""
        width = self.count * self.intermediate_size + self.shared_intermediate_size
        return hidden_size * (self.router_outputs + 3 * width)


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """The shape of a decoder. Sizes are elements, not bytes; `num_layers` blocks of attention and MLP.

    - `head_dim` x `num_heads` need not equal `hidden_size`; `num_kv_heads` < `num_heads` is grouped-query attention.
    - `gated_mlp`: gate, up and down projections (SwiGLU); otherwise one up and one down projection.
    - `qkv_bias`, `output_bias`, `mlp_bias`: bias vectors of the query/key/value, the attention output and both MLP
      projections; `qk_norm`: an RMSNorm of `head_dim` elements on queries and on keys.
    - `position_rows`: rows of the learned position table (0 with rotary positions).
    - `sliding_window`: tokens a query attends to at most, itself included; None for all.
    - `experts`: the mixture of experts that each block has in place of its MLP (whose width then means nothing).
    """

    name: str
    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    gated_mlp: bool
    norm: NormKind
    positions: PositionKind
    tie_word_embeddings: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    position_rows: int = 0
    sliding_window: int | None = None
    experts: Experts | None = None

    @property
    def query_size(self) -> int:
        """Elements of all query heads of a token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of all key heads of a token (the value heads have as many)."""
        return self.num_kv_heads * self.head_dim

    @property
    def norm_parameters(self) -> int:
        """Parameters of one normalisation over the hidden size."""
        return self.hidden_size * (2 if self.norm is NormKind.LAYER else 1)

    @property
    def block_parameters(self) -> int:
        """Parameters of one block: two norms, attention, and the MLP or experts, with their biases."""
        hidden, inner = self.hidden_size, self.intermediate_size
        qkv = self.query_size + 2 * self.kv_size
        attention = hidden * qkv + self.query_size * hidden
        attention += qkv * self.qkv_bias + hidden * self.output_bias + 2 * self.head_dim * self.qk_norm
        up_projections = 2 if self.gated_mlp else 1
        mlp = (up_projections + 1) * hidden * inner + self.mlp_bias * (up_projections * inner + hidden)
        if self.experts is not None:
            mlp = self.experts.parameters(hidden)
        return attention + mlp + 2 * self.norm_parameters

    @property
    def parameters(self) -> int:
        """Parameters of the whole model; tied embeddings count once."""
        vocabulary = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        positions = self.position_rows * self.hidden_size
        return vocabulary + positions + self.num_layers * self.block_parameters + self.norm_parameters


def load_model(name_or_path: str) -> ModelArchitecture:
    """Return the architecture of a shipped model (``org/name``, its last part, or an alias) or of a config file.

    `name_or_path` may also be a ``config.json`` or a folder that holds one. Spelling of shipped names is
    tolerant of case. Raises `UserError` for an unknown name (with near ones), an unsupported `model_type`, and
    wrong fields (all of them at once).
    """
    path, name = _locate(name_or_path)
    config = read_json_object(path, "model configuration")
    fields = Fields(config, path)
    model_type = fields.text("model_type")
    fields.finish("model configuration")
    from trace_gen.families import families  # the families build ModelArchitecture, so they import this module

    if model_type not in families:
        raise UserError(
            f"model_type {model_type!r} is not supported",
            fix=near_names(model_type, families),
            path=path,
            field="model_type",
        )
    architecture = families.get(model_type)(name, fields)
    fields.finish("model configuration")
    return architecture


def shipped_models() -> dict[str, Path]:
    """Return the configuration file of every model that ships with the project, by its full name."""
    paths = sorted(MODELS_FOLDER.rglob("*.json"))
    return {
        path.relative_to(MODELS_FOLDER).as_posix().removesuffix(".json"): path
        for path in paths
        if path.name != "aliases.json"
    }


def _locate(name_or_path: str) -> tuple[Path, str]:
    """Return the configuration file and the model's name."""
    path = Path(name_or_path)
    if path.is_dir() and (path / "config.json").is_file():
        return path / "config.json", path.resolve().name
    if path.is_file():
        return path, path.resolve().parent.name if path.name == "config.json" else path.stem
    if path.suffix == ".json":
        raise UserError("the model configuration does not exist", path=path, fix="check the path")
    shipped = shipped_models()
    wanted = name_or_path.casefold()
    by_name = {name.casefold(): name for name in shipped}
    by_name |= {name.rpartition("/")[2].casefold(): name for name in shipped}
    aliases: dict[str, str] = {}
    if wanted not in by_name:
        aliases = read_json_object(MODELS_FOLDER / "aliases.json", "list of model aliases")
    name = by_name.get(wanted) or aliases.get(wanted)
    if name is None:
        near = near_names(name_or_path, [*shipped, *aliases, *(full.rpartition("/")[2] for full in shipped)])
        raise UserError(f"unknown model {name_or_path!r}", fix=f"{near} (or give the path of a config.json)")
    return shipped[name], name
