"""What several tests need: tiny models and real servers."""
