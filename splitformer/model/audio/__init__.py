"""Audio, up to what an encoder takes in: bytes to samples, samples to log-mel features."""
