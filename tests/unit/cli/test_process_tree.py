"""Descendants and the sockets that they hold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from serval_node.cli.process_tree import descendants, held


def test_grandchildren_and_their_sockets_are_found() -> None:
    program = """
import os, socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0))
if os.fork() == 0:
    print(os.getpid(), os.fstat(s.fileno()).st_ino, flush=True)
    sys.stdin.read()
    os._exit(0)
s.close()
os.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        grandchild, inode = map(int, child.stdout.readline().split())
        tree = descendants(os.getpid())
        assert {child.pid, grandchild} <= tree
        assert os.getpid() not in tree
        with socket.socket() as other:
            own = os.fstat(other.fileno()).st_ino
            assert held(tree, {inode, own}) == {inode}
        child.stdin.close()


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        assert held({child.pid}, {1}) == set()
