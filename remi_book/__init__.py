"""What reads: one chapter a file, figures, claims, exercises, running notebooks, publishing, and the command line."""
