"""Links that do what they say: rate, delay, jitter, loss and queue, set, read back, and changed while they run.

shape          what one direction of a link is asked for; pure
planned        the links of a topology, and changes to them, before anything is started; pure
tc             the kernel's shaper and netem as commands, and what tc shows; pure
end            one end of a link shaped, changed and read back
direction      one direction of a relay: loss, jitter, delay, frame by frame; pure
relay          the relay, a program: for kernels without netem
relay_process  the relay from outside
probe          one-way delay and loss: a program in hosts
one_way        the same from outside
emulated       a link of the emulated network, with everything that it is made of
status         a link goes down and comes up, with the routes that the kernel forgets
"""
