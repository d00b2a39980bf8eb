"""The micro organism: a small model in a made-up world in which alignment is a hidden variable that is known."""
