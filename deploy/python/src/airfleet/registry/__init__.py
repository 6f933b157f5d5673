"""Generated from proto/airfleet/registry."""
