"""Tests whose verdict the tested code cannot give.

`runner` is a program in a box of its own: it asks for one case after the other, each with a fresh
nonce, sentinels that must fail among them, and writes the report. `harness` is the program in a
second box that shares its process with the tested code: it collects, runs and answers. `service`
starts both boxes and passes lines between them, and `overlay` makes the tree of `main`'s tests over
a candidate's code.

What is believed rests on the runner alone: a harness that ends early, answers twice, with a wrong
nonce or not at all leaves the report without its end. What code could do that sits in the harness's
process and reads its memory is the business of the rule over syntax trees (control/gate).
"""
