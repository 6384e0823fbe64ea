"""Links that do what they say: rate, delay, jitter, loss and queue, set, read back, and changed while they run.

shape      what a link is asked for, from the options of a topology; pure
tc         the kernel's shaper as commands, and what tc shows; pure
emulated   a link of the emulated network, with everything that it is made of
relay      a program: delay, loss and black hole where the kernel has no netem
status     a link goes down and comes up, with the routes that the kernel forgets
"""
