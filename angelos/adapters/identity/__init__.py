"""Who a peer is: the certificate authority, enrolment, signing keys."""
