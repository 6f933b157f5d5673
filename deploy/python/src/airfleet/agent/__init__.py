"""Generated from proto/airfleet/agent."""
