"""Everything that `driftloop up` runs: which services, kept alive by whom, and how they are."""

from driftloop.up.services import Service, chosen, services
from driftloop.up.status import ServiceStatus, status, vitals
from driftloop.up.supervisor import Supervisor

__all__ = ["Service", "ServiceStatus", "Supervisor", "chosen", "services", "status", "vitals"]
