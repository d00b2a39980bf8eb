"""Models: what one is named by, where it comes from, loaded and placed, and what is read or changed inside it."""
