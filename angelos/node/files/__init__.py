"""Files that go into a task's box and come out of it, and its rich output."""
