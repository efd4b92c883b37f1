"""One request to one model, top to bottom: from the gate through the engine to the settled end."""
