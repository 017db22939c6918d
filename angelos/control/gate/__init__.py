"""What a person has to see of a patch before it may become `main`: rules without waiting.

`judges` says which files judge, `modules` which names a file must not take, `syntax` which code
is understood, `notebooks` and `tests` what was taken away from a test. `inspect` applies all of
them to a patch, as a program of its own with limits (`python -I -m angelos.control.gate.inspect`).
"""
