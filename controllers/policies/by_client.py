"""Policies that keep a client at its instance, as long as that is there: consistent hashing of the client's address.

How the two differ is in `serval_node.sal.consistent_hashing`.
"""

from __future__ import annotations

from controllers.policies.base import Policy


class Maglev(Policy):
    """A table of 65537 places, the same at every router: even shares, and hardly a client of another instance moves."""

    name = "maglev"
    selector = "maglev"


class Ring(Policy):
    """Points on a ring: no client of another instance moves; shares are less even."""

    name = "ring"
    selector = "ring"
