"""Wiring of the encoder service: `python -m encoder_service --help`."""

from __future__ import annotations

import sys

from splitformer.serving.limits import check_process_fits


def run() -> int:
    """Run the service; what takes much memory is loaded only where it fits."""
    check_process_fits("encoder-service")
    from encoder_service.service import EncoderService  # noqa: PLC0415
    from encoder_service.servicer import register  # noqa: PLC0415
    from encoder_service.settings import EncoderSettings  # noqa: PLC0415
    from splitformer.serving.server import main  # noqa: PLC0415

    return main("encoder-service", EncoderSettings, EncoderService, register, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
