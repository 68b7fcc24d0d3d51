"""Resources: what runs the model, read beside the traced loop and never in it."""
