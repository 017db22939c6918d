-- Versions of role models, what each alias names, promotions and training runs.

create table model_version (
    role text not null check (role ~ '^[a-z][a-z0-9-]{0,31}$'),
    version integer not null check (version > 0),
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    body bytea not null,                -- core.models.ModelVersion, JSON
    evidence text not null check (evidence ~ '^[0-9a-f]{64}$'),  -- the texts that judged it
    primary key (role, version)
);

-- A role's row is locked while its aliases move, so two moves cannot pass each other.
create table model_role (
    role text primary key,
    body bytea not null                 -- core.models.ModelAliases, JSON
);

create table model_promotion (
    id text primary key,
    role text not null,
    version integer not null,
    open boolean not null,
    body bytea not null,                -- core.models.PromotionView, JSON
    foreign key (role, version) references model_version (role, version)
);

-- One version of a role is tried at a time.
create unique index model_promotion_open on model_promotion (role) where open;

create table model_run (
    id text primary key,
    open boolean not null,
    body bytea not null                 -- angelos.ml.registry.state.TrainingRun, JSON
);

create index model_run_open on model_run (id) where open;

-- Facts that the journal has yet to take; each stands beside the change that it is about.
create table model_fact (
    number bigint generated always as identity primary key,
    body bytea not null
);
