"""Load balancing: which rule a service gets. One small class for each policy, chosen per service at run time.

docs/load-balancing.md shows how to write one. `base` has the class to derive from, `catalogue` finds policies by name
or file, `book` keeps which service has which.
"""

from controllers.policies.base import Candidate, Policy, PolicyError
from controllers.policies.book import PolicyBook, Setting
from controllers.policies.catalogue import POLICIES, find, register

__all__ = ["POLICIES", "Candidate", "Policy", "PolicyBook", "PolicyError", "Setting", "find", "register"]
