"""Pure decisions on text: three-way merge, conflicts, rebase."""
