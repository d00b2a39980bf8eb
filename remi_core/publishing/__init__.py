"""What is published: the book of a preset, a site of several, and the archive for a deposit."""
