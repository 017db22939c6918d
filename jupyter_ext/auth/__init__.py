"""Who is signed in, and what Jupyter lets them do."""
