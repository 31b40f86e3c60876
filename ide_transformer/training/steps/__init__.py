"""What a run is made of: its task and model, its schedule, its steps, its devices."""
