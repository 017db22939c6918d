"""Git: revisions as git objects, repositories out and in, clone and push. Git's ids are SHA-1."""
