"""Entries times seeds over commands that can be repeated: the only orchestrator."""
