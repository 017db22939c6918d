"""Pure decisions on text: three-way merge, conflicts, hunks."""
