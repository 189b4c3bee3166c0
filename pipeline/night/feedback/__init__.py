"""What people ask and say of a night afterwards."""
