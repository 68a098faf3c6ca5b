"""What the services' parent imports once, so that they need not."""

import services.api.server
import services.launcher.launcher
import services.reaper.reaper
import services.scheduler.due
import services.scheduler.relay
import services.scheduler.submit
from tests.chaos import dying

__all__ = ["dying", "services"]
