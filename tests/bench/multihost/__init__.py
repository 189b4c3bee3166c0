"""Several hosts on one machine: network namespaces that share nothing but a bridge."""
