"""What an estimate rests on: entries of the registries, and what stands in for those that are missing.

A GPU that is not entered is taken from the devices that ship (or a hardware file), a model from those that ship (or a
config.json), a prompt speed from a performance model; each with a note that says so and how to enter it. Nothing is
written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foundation.errors import UserError
from foundation.printable import brief
from foundation.records import dataclass
from orchestrator.estimating.prompts import prompt_speed, simulated, source_of
from orchestrator.estimating.registries import GpuEntry, ModelEntry, PtpsEntry, Registries
from orchestrator.estimating.simulated import one_gpu
from orchestrator.settings.engine import KV_DTYPES, ModelSettings
from orchestrator.settings.specification import RunSpec
from trace_gen.architecture import ModelArchitecture
from trace_gen.hardware import Hardware, load_hardware
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_models import NamesDevice, PerfModelSettings
from trace_gen.precision import Precision


@dataclass(frozen=True, slots=True)
class Known:
    """A GPU and a model, as they are entered or stand in; `notes` say which, one sentence each.

    `hardware`: what the full simulation calls the GPU, None where nothing that ships, and no file, is called so.
    """

    gpu: GpuEntry
    model: ModelEntry
    hardware: str | None
    notes: tuple[str, ...]
    entered: bool
    """The bandwidth is the registry's own, and the full simulation has it, too."""

    @property
    def settings(self) -> ModelSettings:
        """The model and the GPU, for the full simulation."""
        model = self.model
        kv = next((name for name, bits in KV_DTYPES.items() if bits == model.kv_bits and bits != model.bits), "auto")
        bandwidth = self.gpu.bandwidth / 1e9 if self.entered else None
        name = model.config or model.name
        return ModelSettings(
            model_name=name, hardware=self.hardware, fp=model.bits, kv_cache_dtype=kv, local_bw=bandwidth
        )

    def run(self, perf_model: PerfModelSettings) -> RunSpec:
        """Return the run of one static batch of the model on the GPU, its requests still open.

        A GPU that only the registry knows is a `UserError`, unless `perf_model` was measured on one.
        """
        measured = isinstance(perf_model, NamesDevice) and perf_model.device() is not None
        if self.hardware is None and not measured:
            raise UserError(
                f"{brief(self.gpu.name)} is a name of the registry alone: no performance model knows the device",
                field="--gpu",
                fix="name a device that ships or a hardware file, or give --profile_dir",
            )
        return one_gpu(self.settings, perf_model)


def known(registries: Registries, model_name: str, gpu: str | None) -> Known:
    """Return a model and a GPU by their names; a `UserError` says of what nobody knows how to enter it.

    `gpu` None: the one that PyTorch finds here.
    """
    if gpu is None:
        from orchestrator.estimating.gpu import present_gpu

        gpu = present_gpu()
        if gpu is None:
            raise UserError("no GPU is named, and PyTorch finds none here", field="--gpu", fix="name one")
    found, hardware, entered, said = _gpu(registries, gpu)
    model, of_model = _model(registries, model_name)
    return Known(found, model, hardware, tuple(note for note in (said, *of_model) if note), entered)


def ptps_of(
    registries: Registries, one: Known, gpu: str | None, perf_model: PerfModelSettings
) -> tuple[PtpsEntry, str]:
    """Return the prompt speed of a model on a GPU, and a note where it is not entered."""
    names = [one.gpu.name, *([gpu] if gpu else [])]
    entry = registries.ptps(one.model.name, names)
    if entry is not None:
        return entry, ""
    spec = one.run(perf_model)
    entry, _ = prompt_speed(simulated(spec), source_of(spec))
    how = f"orrery profile-prompt --model_name {one.model.name} --gpu {one.gpu.name} enters it"
    return entry, f"{registries.prompts} has no {one.model.name} on {one.gpu.name}: from the {entry.source}; {how}"


def model_entry(
    architecture: ModelArchitecture, bits: int = 16, kv_bits: int = 16, config: str | None = None
) -> ModelEntry:
    """Return the bytes of a model's weights, and of the KV cache of a token over all layers."""
    memory = ModelMemory(architecture, Mesh(), Precision(bits, bits, kv_bits))
    return ModelEntry(architecture.name, memory.weight_bytes(0), memory.kv_bytes_per_token(0), bits, kv_bits, config)


def left_out(architecture: ModelArchitecture) -> Iterator[str]:
    """Yield what of a model the formulas do not know, one sentence each."""
    groups = ModelMemory(architecture, Mesh()).kv_groups
    if any(group.window is not None for group in groups):
        yield f"{architecture.name} has layers that keep a window of tokens: the formula reads all tokens of all layers"
    if architecture.mixtures:
        yield f"{architecture.name} is a mixture of experts: the formula reads the weights of all of them at every step"


def shipped_device(name: str) -> Hardware | None:
    """Return the device that ships under a name (or stands in the file of that name), None where there is none.

    A hardware file that is wrong is a `UserError`.
    """
    try:
        return load_hardware(name)
    except UserError as error:
        if error.path is not None or name.endswith(".json"):
            raise
        return None


def _gpu(registries: Registries, name: str) -> tuple[GpuEntry, str | None, bool, str]:
    """Return the GPU, what the full simulation calls it, whether it is entered, and a note where it is not."""
    device = shipped_device(name)
    hardware = None if device is None else name
    entry = registries.gpu(name, *([] if device is None else [device.name]))
    if entry is not None:
        return entry, hardware, True, ""
    if device is None:
        raise UserError(
            f"{registries.gpus} has no {brief(name)}, and no device that ships is called so",
            field="--gpu",
            fix=f"enter it: orrery profile-gpu --gpu {name} --memory_bandwidth GB_S",
        )
    entry = GpuEntry(device.name, device.memory_bandwidth)
    said = f"{entry.bandwidth / 1e9:g} GB/s of the device that ships; orrery profile-gpu --gpu {name} enters it"
    return entry, hardware, False, f"{registries.gpus} has no {device.name}: {said}"


def _model(registries: Registries, name: str) -> tuple[ModelEntry, tuple[str, ...]]:
    """Return the model, and notes of what stands in for an entry and of what the formulas leave out."""
    entry = registries.model(name)
    try:
        architecture = load_model(name if entry is None or entry.config is None else entry.config)
    except UserError as error:
        if entry is not None:
            return entry, ()  # known by its figures alone
        if error.path is not None:
            raise
        fix = f"{error.fix}; or enter it: orrery profile-model --model_name CONFIG_JSON"
        raise UserError(f"{registries.models} has no entry: {error.what}", field="--model_name", fix=fix) from error
    notes = tuple(left_out(architecture))
    entry = entry or registries.model(architecture.name)
    if entry is not None:
        return entry, notes
    config = name if Path(name).exists() else None
    entry = model_entry(architecture, config=config)
    said = f"as its config.json says, 16-bit; orrery profile-model --model_name {name} enters it"
    return entry, (f"{registries.models} has no {entry.name}: {said}", *notes)
