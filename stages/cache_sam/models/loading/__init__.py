"""How weights get in: checkpoint files, folders of transformers and the hub, a factory of the user's own."""
