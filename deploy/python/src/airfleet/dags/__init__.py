"""Generated from proto/airfleet/moves."""
