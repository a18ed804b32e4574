"""The peers, loaded with our weights."""
