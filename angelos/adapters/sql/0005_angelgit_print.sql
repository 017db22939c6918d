-- AngelGit: what the working file of each document holds by our doing, so that what others wrote
-- into it is known from what we wrote, also after a kill. Contents are compressed with zstd.

create table angelgit_print (
    document text primary key references angelgit_document,
    body bytea,                                                  -- what it holds
    next bytea,                                                  -- what it is about to hold
    taken bytea                                                  -- `next` is on disk already, and
);                                                               -- this update takes it in
