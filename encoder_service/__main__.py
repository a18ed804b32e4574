"""Wiring of the encoder service: `python -m encoder_service --help`."""

from __future__ import annotations

import sys

from encoder_service.service import EncoderService
from encoder_service.servicer import register
from encoder_service.settings import EncoderSettings
from splitformer.serving.server import main

if __name__ == "__main__":
    sys.exit(main("encoder-service", EncoderSettings, EncoderService, register, sys.argv[1:]))
