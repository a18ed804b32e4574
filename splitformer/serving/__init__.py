"""What both services share: settings, server life cycle, interception, telemetry, logs."""
