"""Is what the maps hold what the etcds say? Computed a second time, in another way.

Nothing here uses the agent's merge, encoding or memory: the etcds and the kernel are read anew,
what must be in the maps follows from a model that is written for its reader, and bytes are laid out
from the contract's table (datapath 1.17). Shared with the agent is only how a value of etcd is read
(``clustermesh.keys``, held against recordings of real Cilium).

``reading``: facts. ``addresses``, ``sharing``, ``frontends``, ``placement``: what must be.
``kernel``, ``observed``: what is. ``compare``, ``balance``, ``judgement``: the difference.
``auditor``: when. ``repair``: what to do about it.
"""
