"""The command line, the recipes that it runs, and run folders."""
