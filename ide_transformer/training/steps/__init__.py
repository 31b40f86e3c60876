"""The parts of a run: task and model, schedule, steps, devices."""
