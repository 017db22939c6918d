"""Identities of peers: the certificate authority, enrolment, signing keys."""
