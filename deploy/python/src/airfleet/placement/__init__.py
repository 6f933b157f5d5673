"""Generated from proto/airfleet/placement."""
