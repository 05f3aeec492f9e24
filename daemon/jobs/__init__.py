"""What runs on a schedule or on request, one module per job."""
