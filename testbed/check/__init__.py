"""`testbed check`: what this machine offers, a line each, with what to do where something is missing.

findings  one line of the answer
machine   what is seen without touching anything: system, programs, Python packages
kernel    what the kernel has, tried out inside the sandbox
boot      two hosts, really started, one of which connects to the other by a service's name
command   all of them in their order
"""
