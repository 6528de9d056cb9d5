"""What is asked before a request reaches a replica: caches of answers, the index of prefixes. One file per policy."""
