"""ReaLLM's system files made into runs of our own: ``python -m orchestrator.reallm SYSTEM.yaml FOLDER``.

    system_file   the YAML, every key read, or refused or noted by name
    degrees       ``ep#_tp#_pp#_cp#``
    traffic       requests of a task at a rate, drawn as ReaLLM's trace generator draws them
    network       what `io_algo` means: network.yml and system.json
    runs          the combinations of a file's lists, each as the settings of a run

What a run is and how it goes is no part of this package. docs/reallm.md says what is taken over and what is not.
"""
