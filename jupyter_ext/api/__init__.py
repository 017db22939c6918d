"""The control API and the event stream behind the sign-in of Jupyter."""
