"""Generated from proto/airfleet/router."""
