"""The languages of tasks: Python, and those that `data/*.toml` defines.

definitions()["go"]                     # how Go is found, built, run and tested
find(definitions()["go"], folder)       # a Toolchain, or a Missing that says what is not here
"""
