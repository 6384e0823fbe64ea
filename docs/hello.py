"""Two hosts, one service: bind on one, connect from the other, and look at the tables."""

from subprocess import PIPE

from mininet.topo import Topo

import testbed

testbed.enter_sandbox()  # what follows happens in a sandbox of its own


class Pair(Topo):
    def build(self):
        switch = self.addSwitch("s1")
        for name in ("ann", "dan"):
            self.addLink(self.addHost(name), switch, bw=100, delay="2ms")


with testbed.ServalNetwork(Pair(), host=testbed.ServalHost, say=print) as net:
    ann, dan = net["ann"], net["dan"]
    # A server on dan, which echoes what comes, and a client on ann that stays connected meanwhile.
    with dan.bind("echo.example"), ann.popen("serval connect echo.example", stdin=PIPE) as client:
        client.stdin.write(b"hello by name\n")
        client.stdin.flush()
        print("dan echoes:", client.stdout.readline().decode())
        for host in (ann, dan):
            print(f"{host.name}'s service table\n{host.serval('table')}")
            print(f"{host.name}'s flow table\n{host.serval('flows')}")
