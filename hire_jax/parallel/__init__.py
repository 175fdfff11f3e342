"""Training over devices and hosts: on sampled batches, and on a whole graph in parts."""

from hire_jax.parallel.axis import AXIS
from hire_jax.parallel.devices import Devices
from hire_jax.parallel.fit import fit
from hire_jax.parallel.hosts import Hosts, connect
from hire_jax.parallel.partition import Exchanged, Part, Partition, partition
from hire_jax.parallel.partitioned import Partitioned
from hire_jax.parallel.result import SampledFit

__all__ = ["AXIS", "Devices", "Exchanged", "Hosts", "Part", "Partition", "Partitioned", "SampledFit", "connect", "fit",
           "partition"]
