"""`bcistream bench`: what the engine costs on this machine, beside what else could have been run.

``job``        what is asked of every system: a stream, a filter, a window every hop
``outlet``     the process that pushes, and remembers when it did
``consumers``  one file per system that does the job
``meter``      what a consumer tells of its turn
``turns``      who runs when
``figures``    from turns to percentiles, ratios and the check of values
``step``       a step against computing its window again, without torch
``report``     the jobs put together; ``printed`` and ``plot`` show them

**Why in turns.** Each system has the machine to itself, with an outlet of its own, for some seconds; then the
next one, for several rounds in a rotating order.  Were all to listen at once, each would be measured beside
the others' load: on two cores the one that spins takes the time slices of the one that sleeps, and what a
system costs would depend on whom it is compared with.  Were each to run once, one after the other, a machine
that warms up or gets another job in between would favour one.  In turns, a change of the machine meets all of
them, and the spread over the rounds says how much it changed.

**Why one clock.** Every latency is the time at which a consumer's callback was called, less the time at which
the outlet pushed the newest sample of the window: both of the outlet's machine, found by the sample's number.
A consumer's own stamps, which it may smooth, play no part.
"""
