"""From a run to something that others use: predictions, exported models, a server."""
