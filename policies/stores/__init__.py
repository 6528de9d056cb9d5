"""Systems across sequences: what each makes of its options. `policies.systems_across` is the table."""
