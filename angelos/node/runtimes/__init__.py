"""One room for each language: how a task's code becomes a program in the box."""
