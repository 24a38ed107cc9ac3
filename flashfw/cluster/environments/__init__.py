"""What a worker's interpreter finds: its packages, its variables, the code of the worker itself."""
