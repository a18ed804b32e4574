"""What all models of one decoder process have in common."""

from __future__ import annotations

from decoder_service.allow_list import AllowList
from decoder_service.budget import Budget
from decoder_service.channels import EncoderChannels
from decoder_service.hand_off import MemoryPuller
from decoder_service.metrics import DecoderMetrics
from decoder_service.settings import DecoderSettings
from decoder_service.sharing import SharedMemories
from splitformer.errors import UnavailableError
from splitformer.serving.telemetry import Telemetry


class Common:
    """Counters, budget, connections to encoders, and the process's addresses.

    Args:
        settings: How to run.
        telemetry: Where to count.

    Attributes:
        metrics: What is counted.
        budget: What sessions of all models are counted against.
        puller: Brings memories from encoders.
        endpoint: Where calls on a session are to go; empty: the same connection.
        replica: The name that balancers route calls on a session by; empty until it listens.
        draining: True once no new sessions are taken.
    """

    def __init__(self, settings: DecoderSettings, telemetry: Telemetry) -> None:
        self.metrics = metrics = DecoderMetrics(telemetry.registry)
        self.budget = Budget(settings.memory_bytes)
        self.puller = MemoryPuller(
            AllowList(settings.encoders),
            EncoderChannels(settings.encoder_tls_files),
            settings.fetch_seconds,
            SharedMemories(settings.shared_memory, lambda why: metrics.fallbacks.labels(why).inc()),
            lambda path: metrics.transfers.labels(path).inc(),
        )
        self.endpoint = settings.filled_in("endpoint", settings.endpoint)
        self.replica = ""
        self.draining = False
        metrics.slots.set(settings.max_batch)
        metrics.memory_budget_bytes.set(settings.memory_bytes)
        metrics.memory_bytes.set_function(lambda: self.budget.used)

    def check_not_draining(self) -> None:
        """Raise UnavailableError DRAINING once no new sessions are taken."""
        if self.draining:
            raise UnavailableError(
                "the service takes no new sessions", reason="DRAINING", retry_after=1.0
            )
