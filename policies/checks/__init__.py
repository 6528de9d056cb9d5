"""What `policies.contract.check_policy` does for each family."""
