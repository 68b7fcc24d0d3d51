"""What tools/generate.py writes, by language."""
