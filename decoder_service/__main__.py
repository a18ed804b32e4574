"""Wiring of the decoder service: `python -m decoder_service --help`."""

from __future__ import annotations

import sys

from splitformer.serving.limits import check_process_fits


def run() -> int:
    """Run the service; what takes much memory is loaded only where it fits."""
    check_process_fits("decoder-service")
    from decoder_service.service import DecoderService  # noqa: PLC0415
    from decoder_service.servicer import register  # noqa: PLC0415
    from decoder_service.settings import DecoderSettings  # noqa: PLC0415
    from splitformer.serving.server import main  # noqa: PLC0415

    return main("decoder-service", DecoderSettings, DecoderService, register, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
