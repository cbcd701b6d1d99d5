"""An engine under vLLM's policy as one compiled loop over arrays: the same decisions, times and records as `Engine`.

    covering   what it covers, and which runs are long enough for it
    layout     the arrays that are its state, and what stands where in them
    blocks     KV blocks: counted, or numbered with prefixes that are found again
    deciding   one pass of the scheduler
    passing    what a batch takes, and when the stages begin and end it
    landing    a batch that has ended: tokens, requests that are done, what is told
    loop       the events of one engine, in order of time
    handing    how Python hands all the arrays over at once
    memory     the arrays: how large, and how they grow
    pricing    what batches take, as the loop reads it
    telling    what there is to tell, as columns
    engine     the engine on the clock, around all this

The functions in `blocks` to `handing` compile (`foundation.compiling`): they have numbers and arrays only.
"""
