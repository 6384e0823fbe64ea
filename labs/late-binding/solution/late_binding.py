"""The lab on late binding: who decides, and when, which host a connection reaches. README.md beside it is the sheet.

You are the service controller: you write the rules that hosts and service router resolve names by. What you call here
are the commands that you can type at the prompt; `cleo.serval("table")` returns what `cleo serval table` prints. A
host has `name`, `address` and `serval(...)`.
"""

import socket


def at_the_edge(ann, cleo):
    """ann is to reach every service below *.example, those of next year too. It gets ONE rule, once."""
    # TODO 1: let ann forward the whole block *.example to cleo (`serval rule add --help`)
    # <solution>
    ann.serval("rule", "add", "*.example", "forward", cleo.address)
    # </solution>


def at_the_router(cleo, instances):
    """cleo, the service router, is to choose one of the instances for each connection to web.example."""
    # TODO 2: one rule for web.example that names the addresses of all instances
    # <solution>
    cleo.serval("rule", "add", "web.example", "forward", *[instance.address for instance in instances])
    # </solution>


def instances_changed(cleo, instances):
    """The instances of web.example are other ones now: some have joined, some have died."""
    # TODO 3: put another rule in the place of the one of TODO 2 (`serval rule change --help`)
    # <solution>
    cleo.serval("rule", "change", "web.example", "forward", *[instance.address for instance in instances])
    # </solution>


class EarlyBinding:
    """A client as they are today: the name is resolved once, at the start, and what came out is kept."""

    def __init__(self, lookup):
        self.address = lookup("web.example")  # an instance's IP address, as DNS gives it

    def connect(self):
        return socket.create_connection((self.address, 80), timeout=2)


class LateBinding:
    """A client that keeps the name. Whoever gets the connection is decided anew for each one, on its way."""

    def __init__(self, lookup):
        self.name = "web.example"  # nothing is looked up

    def connect(self):
        """An ordinary kernel socket, connected to the name. On a Serval host every name below a provider works."""
        # TODO 4: as in EarlyBinding, but by the name
        # <solution>
        return socket.create_connection((self.name, 80), timeout=2)
        # </solution>
