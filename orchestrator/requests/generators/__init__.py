"""Generators of workloads: who sends requests when, how long they are, what their prompts share, what follows them.

    clients      what one client's requests are like (settings); several make a mixture
    arrivals/    arrival processes, a file each          lengths/       distributions of tokens, a file each
    pairs/       how a prompt and its answer go together  sessions/     what follows a first request
    prefixes     prompts that begin alike                 generating    blocks of rows of a client, and of a mixture
    streams, elementary, gamma: draws that are the same on every machine

The n-th request depends on the settings and the seed, not on how many are made (but for a ramp, which ends with the
last). Settings load nothing heavy; what computes is imported when it is asked for.
"""
