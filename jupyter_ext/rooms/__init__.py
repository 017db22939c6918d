"""Live documents that JupyterLab opens, kept by AngelGit."""
