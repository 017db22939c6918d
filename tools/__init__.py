"""What develops the project: reference pages, the seccomp list, the vocabulary gate."""
