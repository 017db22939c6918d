"""Authentication of people, and authorization of what they do in Jupyter itself."""
