"""The workspace folder: `dev` on disk, and what others write there."""
