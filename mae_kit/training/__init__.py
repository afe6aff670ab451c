"""The only room that knows Lightning's hooks: one step, durable checkpoints, signals, the record of a run."""
