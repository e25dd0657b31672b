"""A package, so that no other "tests" that some distribution installed stands before it."""
