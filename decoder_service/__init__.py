"""The decoder service: takes memories and runs the sequential loop, many sessions at once."""
