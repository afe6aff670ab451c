"""What labels are for."""
