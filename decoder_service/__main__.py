"""Wiring of the decoder service: `python -m decoder_service --help`."""

from __future__ import annotations

import sys

from decoder_service.service import DecoderService
from decoder_service.servicer import register
from decoder_service.settings import DecoderSettings
from splitformer.serving.server import main

if __name__ == "__main__":
    sys.exit(main("decoder-service", DecoderSettings, DecoderService, register, sys.argv[1:]))
