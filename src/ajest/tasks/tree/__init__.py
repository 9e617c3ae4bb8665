"""The 2-D fractal tree: a task whose density, score and sampling are exact at every noise level."""
