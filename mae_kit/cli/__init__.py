"""Words become arguments."""
