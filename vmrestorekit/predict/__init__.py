"""Which blocks a virtual machine will want first: features, estimators, plans."""
