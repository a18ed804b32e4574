"""The encoder service: sources in, memories out, in parallel and in batches."""
