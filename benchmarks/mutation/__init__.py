"""Small random changes to the code, one at a time: which of them do the tests notice?

``python -m benchmarks.mutation --changes 150 --seed 1`` draws changes over the packages in proportion to their code
(`sampling`, `changes`), runs the tests that reach each changed line, by coverage that is recorded once (`recording`),
in a copy of the tree (`trying`), and prints the score by package and what survived (`ledger`).
"""
