"""Pricing by tables that are filled from the traced way.

    covering        which runs, deployments and iterations have tables
    tables          the numbers, and what a batch costs by them
    count_table     what one count of a batch (its tokens, its samples ...) adds
    communication   what the backend says of collectives and messages
    remembered      lookups in measured tables, counted as the traced way counts them
    pricing         the `Pricing` that uses the tables

An iteration's time on a stage is a sum, where its operators follow each other on ranks that are alike:

    time = A[tokens] + B[samples] (+ C[decoding tokens] + D[prompt tokens]) + attention of each kind x its layers
"""
