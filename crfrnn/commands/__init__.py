"""One folder for each command: its Python function, and what it does with files and folders."""
