"""Settings, declared once beside what they set: a frozen dataclass says name, default, meaning, unit and bounds.

    @dataclass(frozen=True)
    class OrcaSettings:
        max_batch: int = setting(0, "requests in a batch at most; 0: no limit", least=0, like=("max_num_seqs",))
        kv_manage: KVManager = choice(kv_managers, "vllm", "KV memory of a request")

From such declarations are derived the flags and their help (`command_line`, `help_text`), the run file (`files`), its
JSON schema (`schema`), the check of values from wherever they come (`reading`), and the record of a run. `declare` has
the declarations, `values` what a single value may be, `catalogue` all names that a record and its choices know. Light
to import: nothing heavy is loaded, and a module that declares settings should load nothing heavy either.
"""

from foundation.settings.declare import Choice, Records, Section, Setting, choice, declared, records, section, setting

__all__ = ["Choice", "Records", "Section", "Setting", "choice", "declared", "records", "section", "setting"]
