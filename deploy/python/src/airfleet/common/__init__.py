"""Generated from proto/airfleet/common."""
