"""Fault drills: runs are killed, disks fail, files change, memory ends, and what remains is checked."""
