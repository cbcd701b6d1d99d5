"""The rules, one file each; `trace_test.rule` lists them. Each module holds one `RULE`."""
